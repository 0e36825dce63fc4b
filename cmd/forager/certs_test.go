package main

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/forager-rl/forager/security"
)

// TestCerts makes credentials, makes them again, and prints them as Secrets; nothing
// secret is in what it says about it.
func TestCerts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	forager := func(args ...string) (string, string) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		if code := run(append([]string{"certs", "--out", dir}, args...), &stdout, &stderr, notified); code != 0 {
			t.Fatalf("%v: exit %d: %s", args, code, stderr.String())
		}
		return stdout.String(), stderr.String()
	}
	said, _ := forager("--run", "laos", "--host", "cluster=node-1.example")
	for _, want := range []string{"actor: ca.crt http.token tls.key tls.crt nats.seed", "ca: ca.key ca.crt http.token", "nats: nats-users.json nats.conf"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q does not say %q", said, want)
		}
	}
	conf, err := os.ReadFile(filepath.Join(dir, "nats", "nats.conf"))
	if err != nil || !strings.Contains(string(conf), filepath.Join(dir, "nats", "tls.crt")) || !strings.Contains(string(conf), "forager.laos.credits") {
		t.Errorf("nats.conf: %s, %v", conf, err)
	}
	if again, _ := forager(); !strings.Contains(again, "nothing to do") {
		t.Errorf("again: %s", again)
	}

	secrets, told := forager("--kubernetes", "rl", "--run", "laos")
	decoder := yaml.NewDecoder(strings.NewReader(secrets))
	for _, role := range security.Roles() {
		var secret struct {
			Kind     string
			Metadata struct{ Name, Namespace string }
			Data     map[string]string
		}
		if err := decoder.Decode(&secret); err != nil {
			t.Fatal(err)
		}
		if secret.Kind != "Secret" || secret.Metadata.Name != "forager-"+string(role) || secret.Metadata.Namespace != "rl" {
			t.Errorf("%s: %+v", role, secret.Metadata)
		}
		folder := t.TempDir()
		for name, text := range secret.Data {
			data, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(folder, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c, err := security.Load(folder)
		if err != nil || c.Role() != role {
			t.Fatalf("%s: %v, %v", role, c, err)
		}
		for _, secret := range []string{c.Token(), string(c.Seed())} {
			if secret != "" && strings.Contains(said+told, secret) {
				t.Errorf("%s: a secret is told", role)
			}
		}
	}
	if conf, err = os.ReadFile(filepath.Join(dir, "nats", "nats.conf")); err != nil || !strings.Contains(string(conf), `"/certs/tls.crt"`) {
		t.Errorf("nats.conf for Kubernetes: %v", err)
	}

	for want, args := range map[string][]string{
		"no folder given":         {"certs"},
		"no name of a namespace":  {"certs", "--out", dir, "--kubernetes", "a b"},
		"write it as NAME or ROL": {"certs", "--out", dir, "--host", "=x"},
		"is no role":              {"certs", "--out", dir, "--host", "king=x"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(args, &stdout, &stderr, notified); code == 0 || !strings.Contains(stderr.String(), want) {
			t.Errorf("%v: exit %d: %s", args, code, stderr.String())
		}
	}
}
