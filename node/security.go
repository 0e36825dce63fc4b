package node

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/search"
	"github.com/forager-rl/forager/security"
)

// loadCredentials reads the credentials of a process that plays some roles, and logs
// what a person should know about them.
func loadCredentials(cfg security.Config, logger *slog.Logger, roles ...forager.Role) (*security.Credentials, error) {
	c, err := security.Load(cfg.Dir)
	if err != nil || c == nil {
		return nil, err
	}
	if !slices.Contains(roles, c.Role()) {
		return nil, forager.WithHint(fmt.Errorf("the credentials in %s are those of %s, and this process is %v", cfg.Dir, c.Role(), roles),
			"set security.dir to the folder of its own role")
	}
	for _, w := range c.Warnings() {
		logger.Warn("credentials", "warning", w)
	}
	return c, nil
}

// secureBus gives a bus the credentials of the process; with embedded it lets in
// those that they name.
func secureBus(cfg *bus.Config, c *security.Credentials, embedded bool) {
	if c == nil {
		return
	}
	if embedded {
		cfg.TLS, cfg.Users = c.Server(), c.Users()
		return
	}
	cfg.TLS, cfg.Seed = c.Client(), c.Seed()
	if len(cfg.Seed) > 0 {
		cfg.Role = c.Role()
	}
}

// retrieverServer checks where the retriever listens and gives its server the
// credentials of the process.
func retrieverServer(cfg *Config, c *security.Credentials) (search.ServerConfig, error) {
	server := cfg.Search.Server
	if err := security.CheckListen(server.Listen, c, cfg.Security.AllowPlain); err != nil {
		return server, fmt.Errorf("retriever: %w", err)
	}
	server.TLS = c.Server()
	server.Protect = func(next http.Handler) http.Handler { return security.Bearer(c.Token(), next) }
	return server, nil
}

// retrieverClient gives the client of a retriever the credentials of the process,
// for an address with https alone: to others no token is sent. Retrievers are known
// by their role, since their addresses come and go.
func retrieverClient(cfg search.ClientConfig, c *security.Credentials) search.ClientConfig {
	if c != nil {
		cfg.TLS, cfg.Token = c.Client(), c.Token()
		cfg.TLS.ServerName = string(forager.RoleRetriever)
	}
	return cfg
}

// webAddress is the URL of a server of this process at "host:port".
func webAddress(c *security.Credentials, address string) string {
	if c != nil {
		return "https://" + address
	}
	return "http://" + address
}

// flightAddress is the address of a Flight server of this process at "host:port", in
// the form that Flight's clients take.
func flightAddress(c *security.Credentials, address string) string {
	if c != nil {
		return "grpc+tls://" + address
	}
	return "grpc+tcp://" + address
}
