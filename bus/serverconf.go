package bus

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/forager-rl/forager"
)

// ServerConfig is the configuration file of an official nats-server that takes the
// place of the embedded one for a run: the same users with the same permissions,
// TLS, and JetStream. The certificate and its key are in a folder as package
// security makes them.
func ServerConfig(run, dir string, users map[forager.Role][]string) ([]byte, error) {
	cfg := DefaultConfig()
	cfg.Run, cfg.StoreDir = run, dir
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, `# Made by "forager certs" for run %s: users and what each may do. Start the server
# with: nats-server -c nats.conf
server_name: forager-%s
listen: "0.0.0.0:4222"
max_payload: %d

tls {
  cert_file: %q
  key_file: %q
  min_version: "1.3"
  timeout: %d
}
authorization {
  timeout: %d
}

# store_dir is best on a disk of its own.
jetstream {
  store_dir: "/data/nats"
  sync_interval: "%v"
}

system_account: SYS
accounts {
  SYS {}
  FORAGER {
    jetstream: enabled
    users: [
`, run, run, cfg.MaxPayload, filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"),
		handshakeTimeout, handshakeTimeout+2, cfg.SyncInterval)
	for _, role := range append(forager.Roles(), forager.RoleOperator) {
		p := PermissionsOf(run, role)
		respond := ""
		if p.Respond {
			respond = fmt.Sprintf("\n          allow_responses: {max: 1, expires: \"%v\"}", answerAge)
		}
		for _, user := range slices.Sorted(slices.Values(users[role])) {
			fmt.Fprintf(&b, `      { # %s
        nkey: %s
        permissions: {
          publish: {allow: %s}
          subscribe: {allow: %s}%s
        }
      }
`, role, user, subjects(p.Publish), subjects(p.Subscribe), respond)
		}
	}
	b.WriteString("    ]\n  }\n}\n")
	return []byte(b.String()), nil
}

// subjects is a list in the server's format.
func subjects(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = fmt.Sprintf("%q", s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
