package node

import (
	"context"
	"errors"
	"net"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/search"
)

// anyPort is where a retriever listens that announces its address.
const anyPort = "127.0.0.1:0"

// ServeRetriever serves the corpus over HTTP for anybody who speaks POST
// /retrieve, without a run, a bus or a cluster, until it is told to stop.
// Unless an address is set it listens where Search-R1's clients look.
func ServeRetriever(ctx context.Context, cfg Config, o RoleOptions) error {
	if cfg.Search.Server.Listen == anyPort {
		cfg.Search.Server.Listen = search.DefaultServerConfig().Listen
	}
	if err := errors.Join(cfg.Search.BM25.Validate(), cfg.Search.Server.Validate()); err != nil {
		return err
	}
	credentials, err := loadCredentials(cfg.Security, o.Logger, forager.RoleRetriever)
	if err != nil {
		return err
	}
	serving, err := retrieverServer(&cfg, credentials)
	if err != nil {
		return err
	}
	ctx, cancel := stopContext(ctx, o.Stop)
	defer cancel()
	o.phase("index", 0, 1)
	index, passages, shut, err := openIndex(ctx, &cfg)
	if err != nil {
		return err
	}
	o.phase("index", 1, 1)
	server, err := search.NewServer(serving, index, passages, o.Logger, prometheus.NewRegistry())
	if err != nil {
		return errors.Join(err, shut())
	}
	address, err := server.Listen()
	if err != nil {
		return errors.Join(err, shut())
	}
	o.notice("retriever with %d passages at %s/retrieve", passages, webAddress(credentials, reachable(address, net.IPv4(127, 0, 0, 1))))
	return errors.Join(server.Run(ctx), shut())
}
