#!/usr/bin/env bash
# rootfs.sh BINARY FOLDER: lays out everything that the image holds besides a
# static binary: users, certificates of public authorities, and the folders on
# which volumes are mounted. A new volume takes the owner of the folder that it
# covers, so these belong to the user that the image runs as.
set -euo pipefail
binary=$1 root=$2
user=65532

install -D -m 755 "$binary" "$root/forager"
mkdir -p "$root/etc/ssl/certs"
printf 'root:x:0:0:root:/:/sbin/nologin\nforager:x:%d:%d:forager:/data:/sbin/nologin\n' $user $user >"$root/etc/passwd"
printf 'root:x:0:\nforager:x:%d:\n' $user >"$root/etc/group"
for bundle in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
	if [ -r "$bundle" ]; then
		install -m 644 "$bundle" "$root/etc/ssl/certs/ca-certificates.crt" # for judges over https
		break
	fi
done
mkdir -m 1777 "$root/tmp"
mkdir -m 700 "$root/certs" "$root/data"
for role in ca nats cluster replay rewardsrv retriever learner actor operator; do
	mkdir -p -m 700 "$root/out/$role"
done
chmod 755 "$root" "$root/out"
