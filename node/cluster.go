package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/cluster"
	"github.com/forager-rl/forager/security"
)

// startCluster opens a node of the Raft group and answers for the group on the
// bus: with the others under one name, and alone under its own, to which a node
// that does not lead passes requests on.
func (p *process) startCluster(ctx context.Context) error {
	cfg := p.cfg.Cluster
	cfg.Name = p.run
	cfg.TLS = p.credentials.Mutual(forager.RoleCluster)
	if cfg.Listen != "" {
		if err := security.CheckListen(cfg.Listen, p.credentials, p.cfg.Security.AllowPlain); err != nil {
			return fmt.Errorf("raft: %w", err)
		}
	}
	cfg.Forward = func(ctx context.Context, node string, request []byte) ([]byte, error) {
		return clusterCaller{caller{p.bus, clusterNode(node)}}.Call(ctx, request)
	}
	c, err := cluster.Open(cfg, filepath.Join(p.dir.Path(), "raft"), p.logger, p.clock)
	if err != nil {
		return err
	}
	exportCluster(p.registry, c.Status)
	p.roster.Tell(func(m *cluster.Member) {
		view := c.View()
		m.Raft = &view
	})
	// The last to stop is what the others need to finish what they passed on.
	p.group.start(ctx, "cluster node service", func(ctx context.Context) error {
		return p.bus.Serve(ctx, clusterNode(cfg.NodeID), c.Handle)
	})
	p.group.start(ctx, "cluster", func(ctx context.Context) error {
		return errors.Join(c.Run(ctx), c.Close())
	})
	if cfg.Join {
		if err := p.joinGroup(ctx, &cfg); err != nil {
			return err
		}
	}
	if err := retryUntil(ctx, "wait for a raft leader", p.cfg.Admin.StartTimeout, func(ctx context.Context) error {
		return p.unlessFailed(c.WaitLeader(ctx))
	}); err != nil {
		return err
	}
	p.group.start(ctx, "cluster service", func(ctx context.Context) error {
		return p.bus.Serve(ctx, serviceCluster, c.Handle)
	})
	return p.awaitCluster(ctx)
}

// joinGroup asks the group to let this node in.
func (p *process) joinGroup(ctx context.Context, cfg *cluster.Config) error {
	return retryUntil(ctx, "wait to be let into the raft group", p.cfg.Admin.StartTimeout, func(ctx context.Context) error {
		return p.unlessFailed(p.cluster.AddNonvoter(ctx, cfg.NodeID, cfg.Advertised()))
	})
}

// clusterNode is the service of one node of the Raft group.
func clusterNode(id string) string { return serviceCluster + "-" + id }

// clusterCaller implements cluster.Caller over the bus. That no node answers is
// what the group calls unavailable: a client tries again for a while.
type clusterCaller struct{ caller }

// Call implements cluster.Caller.
func (c clusterCaller) Call(ctx context.Context, request []byte) ([]byte, error) {
	answer, err := c.caller.Call(ctx, request)
	if errors.Is(err, bus.ErrNoService) {
		err = fmt.Errorf("%w: %w", cluster.ErrUnavailable, err)
	}
	return answer, err
}

// exportCluster registers metrics of how a node sees its group.
func exportCluster(registry prometheus.Registerer, status func() cluster.Status) {
	gauge := func(name, help string, value func(cluster.Status) float64) {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "forager_cluster_" + name, Help: help}, func() float64 { return value(status()) }))
	}
	is := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	gauge("leader", "1 while this node leads the Raft group.", func(s cluster.Status) float64 { return is(s.Leader == s.NodeID) })
	gauge("voter", "1 while this node has a vote.", func(s cluster.Status) float64 { return is(s.Voter) })
	gauge("term", "Raft term, which goes up with every election.", func(s cluster.Status) float64 { return float64(s.Term) })
	gauge("applied", "Index of the newest log entry that this node has applied.", func(s cluster.Status) float64 { return float64(s.Applied) })
	gauge("committed", "Index of the newest log entry that a majority has, as far as this node knows.", func(s cluster.Status) float64 { return float64(s.Committed) })
	registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "forager_cluster_unknown_entries_total", Help: "Log entries and snapshots that this program does not understand.",
	}, func() float64 { return float64(status().Unknown) }))
	for reason := range status().Refused {
		registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "forager_cluster_refused_connections_total", Help: "Connections of other nodes that were refused.",
			ConstLabels: prometheus.Labels{"reason": reason},
		}, func() float64 { return float64(status().Refused[reason]) }))
	}
}

// GroupOptions says which group to speak to.
type GroupOptions struct {
	Run    string // run id
	URL    string // of the NATS server
	Logger *slog.Logger
}

// WithGroup calls use with a client of a run's Raft group.
func WithGroup(ctx context.Context, cfg Config, o GroupOptions, use func(context.Context, *cluster.Client) error) error {
	cfg.Bus.Run, cfg.Bus.URL = o.Run, o.URL
	credentials, err := loadCredentials(cfg.Security, o.Logger, forager.RoleOperator)
	if err != nil {
		return err
	}
	secureBus(&cfg.Bus, credentials, false)
	b, err := bus.OpenReader(ctx, cfg.Bus, o.Logger)
	if err != nil {
		return err
	}
	return errors.Join(use(ctx, clusterClient(b)), b.Close())
}
