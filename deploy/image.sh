#!/usr/bin/env bash
# image.sh BINARY TAG: makes an image from a static binary without a builder and
# without a base image, so nothing is pulled: a tar of the files, with their
# owners, is its one layer. deploy/Dockerfile makes the same image the usual way.
set -euo pipefail
binary=$(realpath "$1") tag=$2
cd "$(dirname "${BASH_SOURCE[0]}")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
./rootfs.sh "$binary" "$work/root"

pack() { # pack OWNER ENTRY...
	tar -C "$work/root" --numeric-owner --owner="$1" --group="$1" --sort=name -rf "$work/layer.tar" "${@:2}"
}
pack 0 ./forager ./etc ./tmp
pack 65532 ./certs ./data ./out

docker import \
	--change 'ENTRYPOINT ["/forager"]' \
	--change 'USER 65532:65532' \
	--change 'WORKDIR /data' \
	--change 'EXPOSE 4222 7400 8000 9464' \
	--message "$(basename "$binary") $(stat -c %s "$binary") bytes" \
	"$work/layer.tar" "$tag"
