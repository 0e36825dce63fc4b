package security

import (
	"fmt"
	"net"

	"github.com/forager-rl/forager"
)

// Config says where the credentials of a process are.
type Config struct {
	// Dir is the folder with the credentials of this process, as "forager certs"
	// makes them. Empty: no TLS and no credentials, and servers stay on loopback.
	Dir string `mapstructure:"dir"`
	// AllowPlain lets servers listen off loopback without credentials: for networks
	// that nobody else is on.
	AllowPlain bool `mapstructure:"allow_plain"`
}

// CheckListen refuses an address, "host:port", at which others could reach a server
// that has no credentials.
func CheckListen(address string, c *Credentials, allowPlain bool) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return forager.WithHint(fmt.Errorf("listen address %q: %w", address, err), "write it as host:port")
	}
	if c != nil || allowPlain || isLoopback(host) {
		return nil
	}
	return forager.WithHint(fmt.Errorf("listen address %q is not on loopback, and this process has no credentials", address),
		`make some with "forager certs" and set security.dir; on a network that nobody else is on set security.allow_plain=true`)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
