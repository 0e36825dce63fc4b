package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"runtime"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy"
	"github.com/forager-rl/forager/policy/lm"
	"github.com/forager-rl/forager/policy/remote"
	"github.com/forager-rl/forager/policy/tokenizer"
)

// ensemble is a policy as this process plays it: on engines of its own, or on
// inference servers.
type ensemble interface {
	weightsTarget
	// generator gives each player its own.
	generator(i int) policy.Generator
	// parallel is the number of episodes at once that keep a generator busy.
	parallel() int
	// start runs what must run while episodes are played.
	start(ctx context.Context, g *group)
	close()
}

// engines is an ensemble of native engines, one for each player.
type engines struct {
	list    []*lm.Engine
	cfg     lm.EngineConfig
	decoder weightsDecoder // of published weights
}

// engineCount is how many engines fill this machine's cores.
func engineCount(cfg lm.EngineConfig) int {
	if cfg.Threads == 0 {
		return 1
	}
	return max(1, runtime.GOMAXPROCS(0)/cfg.Threads)
}

// newEngines makes n engines that start with a model.
func newEngines(n int, model *lm.Model, version forager.Version, tok *tokenizer.Tokenizer, cfg lm.EngineConfig) (*engines, error) {
	s := &engines{cfg: cfg}
	for range n {
		e, err := lm.NewEngine(model, version, tok, cfg)
		if err != nil {
			return nil, err
		}
		s.list = append(s.list, e)
	}
	return s, nil
}

func (s *engines) Version() forager.Version         { return s.list[0].Version() }
func (s *engines) generator(i int) policy.Generator { return s.list[i] }
func (s *engines) parallel() int                    { return s.cfg.MaxSequences }
func (s *engines) close()                           {}

func (s *engines) start(ctx context.Context, g *group) {
	for i, e := range s.list {
		g.start(ctx, fmt.Sprintf("engine %d", i), e.Run)
	}
}

func (s *engines) take(_ context.Context, version forager.Version, object []byte) error {
	model, err := s.decoder.decode(object)
	if err != nil {
		return err
	}
	for _, e := range s.list {
		if err := e.SetWeights(model, version); err != nil && !errors.Is(err, forager.ErrStale) {
			return err
		}
	}
	return nil
}

// servers is an ensemble of inference servers, which all players share.
type servers struct {
	*remote.Servers
	run string
	dir string // of weights, as the servers see it
}

// openServers connects to the servers of the configuration.
func openServers(ctx context.Context, c *Config, run string, train bool, tok policy.Tokenizer, logger *slog.Logger) (*servers, error) {
	use := remote.Use{Train: train, Temperature: c.Episode.Temperature, TopK: c.Episode.TopK, TopP: c.Episode.TopP}
	opened, err := remote.Open(ctx, c.Policy.Remote, use, remote.Deps{Tokenizer: tok, Logger: logger})
	if err != nil {
		return nil, err
	}
	dir := c.Policy.Remote.ServerWeightsDir
	if dir == "" {
		dir = c.Policy.Remote.WeightsDir
	}
	s := &servers{Servers: opened, run: run, dir: dir}
	if train {
		if err := opened.CanTake(c.Trainer.LoRA.Rank > 0); err != nil {
			opened.Close()
			return nil, err
		}
	}
	return s, nil
}

func (s *servers) generator(int) policy.Generator { return s.NewGenerator() }
func (s *servers) parallel() int                  { return s.InFlight() }
func (s *servers) start(context.Context, *group)  {}
func (s *servers) close()                         { s.Close() }

func (s *servers) take(ctx context.Context, version forager.Version, object []byte) error {
	shared, err := parseShared(object)
	if err != nil {
		return err
	}
	err = s.SetWeights(ctx, remote.Weights{Name: s.run, Version: version, Path: path.Join(s.dir, s.run, shared.Folder), Adapter: shared.Adapter})
	if errors.Is(err, forager.ErrStale) {
		return nil
	}
	return err
}
