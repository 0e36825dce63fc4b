package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/actor"
	"github.com/forager-rl/forager/cluster"
	"github.com/forager-rl/forager/replay"
	"github.com/forager-rl/forager/rewardsrv"
	"github.com/forager-rl/forager/rewardsrv/labelstore"
	"github.com/forager-rl/forager/search"
)

// startCluster opens the Raft group and answers for it on the bus.
func (p *process) startCluster(ctx context.Context) error {
	c, err := cluster.Open(p.cfg.Cluster, filepath.Join(p.dir.Path(), "raft"), p.logger, p.clock)
	if err != nil {
		return err
	}
	p.group.start(ctx, "cluster", func(ctx context.Context) error {
		return errors.Join(c.Run(ctx), c.Close())
	})
	if err := c.WaitLeader(ctx); err != nil {
		return err
	}
	p.group.start(ctx, "cluster service", func(ctx context.Context) error {
		return p.bus.Serve(ctx, serviceCluster, c.Handle)
	})
	return p.awaitCluster(ctx)
}

// awaitCluster waits until the cluster answers and agrees that this is its run.
func (p *process) awaitCluster(ctx context.Context) error {
	var other error
	err := retryUntil(ctx, "wait for the cluster", p.cfg.Admin.StartTimeout, func(ctx context.Context) error {
		err := p.cluster.SetRun(ctx, cluster.Run{ID: p.run, ConfigDigest: p.cfg.digest()})
		if errors.Is(err, cluster.ErrOtherRun) {
			other = err
			return nil
		}
		return err
	})
	return cmp.Or(other, err)
}

// startReplay opens the table and answers for it on the bus.
func (p *process) startReplay(ctx context.Context) error {
	service, err := replay.NewService(filepath.Join(p.dir.Path(), "replay"), p.run, p.cfg.Replay, replay.ServiceDeps{
		Batches: groupReader{p.bus, p.logger}, Labels: annotations{p.bus, p.unreadable}, Archive: archive{p.dir.RolloutsPath()},
		Logger: p.logger, Registerer: p.registry,
	})
	if err != nil {
		return err
	}
	p.group.start(ctx, "replay", service.Run)
	p.group.start(ctx, "replay service", func(ctx context.Context) error {
		return p.bus.Serve(ctx, serviceReplay, service.Handle)
	})
	return retryUntil(ctx, "wait for replay", p.cfg.Admin.StartTimeout, func(ctx context.Context) error {
		_, err := replay.NewClient(caller{p.bus, serviceReplay}, 0, sampleWait).Stats(ctx)
		return p.unlessFailed(err)
	})
}

// unlessFailed prefers the failure of a role to the error that it caused.
func (p *process) unlessFailed(err error) error {
	if err == nil {
		return nil
	}
	select {
	case failed := <-p.group.failed:
		p.group.failed <- failed // for whoever waits at the end
		return fmt.Errorf("%w: %w", errRoleFailed, failed)
	default:
		return err
	}
}

var errRoleFailed = errors.New("a role failed")

// startRewardServer labels what the actors do, if somebody is to judge.
func (p *process) startRewardServer(ctx context.Context) error {
	if p.cfg.Judge.Judge == rewardsrv.JudgeNone {
		return nil
	}
	tasks, err := p.dataset()
	if err != nil {
		return err
	}
	index, err := p.openLabelIndex()
	if err != nil {
		return err
	}
	server, err := rewardsrv.New(p.cfg.Judge, rewardsrv.Deps{
		Intake: digestReader{p.bus, p.unreadable, p.logger}, Labels: labelStream{p.bus, p.unreadable}, Tasks: tasks, Index: index,
		Claims: p.bus, Models: rewardModels{p.bus},
		Logger: p.logger, Registerer: p.registry, Now: p.clock, Random: unpredictable(),
	})
	if err != nil {
		return errors.Join(err, index.Close())
	}
	p.group.start(ctx, "reward server", func(ctx context.Context) error {
		return errors.Join(server.Run(ctx), index.Close())
	})
	return nil
}

// maxLabelIndexes is how many reward servers may share a run directory.
const maxLabelIndexes = 16

// openLabelIndex opens a label index that no other reward server on this machine
// has open. Each is built from the stream: which one it is does not matter.
func (p *process) openLabelIndex() (*labelstore.Store, error) {
	var err error
	for i := range maxLabelIndexes {
		var index *labelstore.Store
		index, err = labelstore.Open(filepath.Join(p.dir.Path(), "labels", fmt.Sprintf("index-%d.db", i)), p.logger)
		if !errors.Is(err, forager.ErrInUse) {
			return index, err
		}
	}
	return nil, err
}

// startRetriever indexes the corpus, serves it over HTTP and registers the
// address with the cluster.
func (p *process) startRetriever(ctx context.Context) error {
	if err := p.awaitCluster(ctx); err != nil {
		return err
	}
	p.observer.phase("index", 0, 1)
	index, passages, shut, err := openIndex(ctx, &p.cfg)
	if err != nil {
		return err
	}
	p.observer.phase("index", 1, 1)
	registry := prometheus.NewRegistry() // served by the retriever itself
	server, err := search.NewServer(p.cfg.Search.Server, index, passages, p.logger, registry)
	if err != nil {
		return errors.Join(err, shut())
	}
	address, err := server.Listen()
	if err != nil {
		return errors.Join(err, shut())
	}
	p.group.start(ctx, "retriever", func(ctx context.Context) error {
		return errors.Join(server.Run(ctx), shut())
	})
	return p.cluster.Register(ctx, cluster.Service{
		Name: retrieverService, Instance: p.name, Role: string(forager.RoleRetriever), Address: "http://" + reachable(address),
	}, 0)
}

// reachable replaces "all addresses" by this machine's loopback address.
func reachable(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if ok && tcp.IP.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", fmt.Sprint(tcp.Port))
	}
	return a.String()
}

// retriever connects to the configured retriever, or to the run's own.
func (p *process) retriever(ctx context.Context) (search.Retriever, error) {
	cfg := p.cfg.Search.Client
	if cfg.URL == "" {
		err := retryUntil(ctx, "find the run's retriever", p.cfg.Admin.StartTimeout, func(ctx context.Context) error {
			list, err := p.cluster.Lookup(ctx, retrieverService)
			if err != nil {
				return err
			}
			if len(list) == 0 {
				return forager.WithHint(fmt.Errorf("retriever: %w", forager.ErrNotFound), "start one with: forager retriever")
			}
			cfg.URL = list[len(list)-1].Address
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	client, err := search.NewHTTPRetriever(cfg)
	if err != nil {
		return nil, err
	}
	return search.Cached(client, p.cfg.Search.Cache), nil
}

// startActors waits for the first weights, then plays.
func (p *process) startActors(ctx context.Context) error {
	tasks, err := p.dataset()
	if err != nil {
		return err
	}
	if err := p.awaitCluster(ctx); err != nil {
		return err
	}
	p.group.start(ctx, "actors", func(ctx context.Context) error {
		actorPool, err := p.newActorPool(ctx, tasks)
		if err != nil {
			return err
		}
		return actorPool.run(ctx)
	})
	return nil
}

// actorPool is the actors of this process, which share what they fetch.
type actorPool struct {
	process  *process
	ensemble ensemble
	watcher  *weightsWatcher
	actors   []*actor.Actor
}

// newActorPool makes the actors once there are weights and a retriever.
func (p *process) newActorPool(ctx context.Context, tasks *dataset) (*actorPool, error) {
	retriever, err := p.retriever(ctx)
	if err != nil {
		return nil, err
	}
	count := p.cfg.Actor.Count
	if count == 0 {
		count = engineCount(p.cfg.Policy.Engine)
	}
	objects, err := p.weightsSource()
	if err != nil {
		return nil, err
	}
	epochs := &newestEpoch{}
	credits, err := p.newCreditReader(epochs)
	if err != nil {
		return nil, err
	}
	ensemble, l, err := p.newEnsemble(ctx, count, objects)
	if err != nil {
		return nil, err
	}
	c := &actorPool{
		process: p, ensemble: ensemble,
		watcher: &weightsWatcher{bus: p.bus, state: p.cluster.State, objects: objects, target: ensemble, epochs: epochs, logger: p.logger},
	}
	for i := range count {
		player, err := actor.NewPlayer(p.cfg.Episode, actor.PlayerDeps{
			Run: p.run, Actor: fmt.Sprintf("%s-%d", p.name, i), Generator: ensemble.generator(i),
			Tokenizer: l.tokenizer, Prompter: l, StopTokens: l.tokenizer.StopTokens(), Retriever: retriever, Clock: p.clock,
		})
		if err != nil {
			ensemble.close()
			return nil, err
		}
		a, err := actor.New(p.cfg.Actor.Config, actor.Deps{
			Player: player, Credits: credits, Sink: groupWriter{p.bus}, Digests: digestWriter{p.bus},
			Tasks: tasks, Logger: p.logger,
			Registry: prometheus.WrapRegistererWith(prometheus.Labels{"actor": fmt.Sprint(i)}, p.registry),
		})
		if err != nil {
			ensemble.close()
			return nil, err
		}
		c.actors = append(c.actors, a)
	}
	return c, nil
}

// newEnsemble makes what plays the run's policy, with the weights that the
// learner has published.
func (p *process) newEnsemble(ctx context.Context, players int, objects weightsSource) (ensemble, language, error) {
	if p.cfg.Policy.isRemote() {
		return p.newServers(ctx, objects)
	}
	initial, l, err := loadPolicy(p.cfg.Policy.Path, p.cfg.Policy.ChatTemplate)
	if err != nil {
		return nil, l, err
	}
	m, object, err := p.awaitWeights(ctx, objects)
	if err != nil {
		return nil, l, err
	}
	decoder := weightsDecoder{base: initial}
	model, err := decoder.decode(object)
	if err != nil {
		return nil, l, err
	}
	if model.Arch.String() != initial.Arch.String() {
		return nil, l, fmt.Errorf("the run trains %s, this process has a tokenizer for %s: %w", model.Arch, initial.Arch, forager.ErrArchitecture)
	}
	s, err := newEngines(players, model, m.Version, l.tokenizer, p.cfg.Policy.Engine)
	if err != nil {
		return nil, l, err
	}
	s.decoder = decoder
	return s, l, nil
}

// newServers is newEnsemble for inference servers.
func (p *process) newServers(ctx context.Context, objects weightsSource) (ensemble, language, error) {
	l, err := loadLanguage(p.cfg.Policy.Path, p.cfg.Policy.ChatTemplate)
	if err != nil {
		return nil, l, err
	}
	s, err := openServers(ctx, &p.cfg, p.run, true, l.tokenizer, p.logger)
	if err != nil {
		return nil, l, err
	}
	m, object, err := p.awaitWeights(ctx, objects)
	if err == nil {
		err = s.take(ctx, m.Version, object)
	}
	if err != nil {
		s.close()
		return nil, l, err
	}
	return s, l, nil
}

// run plays until ctx is done. Engines and weights go on until the actors have
// drained.
func (c *actorPool) run(ctx context.Context) error {
	g := newGroup(c.process.logger, c.process.cfg.Admin.StopTimeout)
	running := context.WithoutCancel(ctx)
	defer c.ensemble.close()
	defer g.stop()
	c.ensemble.start(running, g)
	g.start(running, "weights", c.watcher.Run)
	g.start(running, "actors", c.play)
	select {
	case <-ctx.Done():
		return nil
	case err := <-g.failed:
		return err
	}
}

// play runs all actors until ctx is done. They drain side by side.
func (c *actorPool) play(ctx context.Context) error {
	errs := make([]error, len(c.actors))
	var wait sync.WaitGroup
	for i, a := range c.actors {
		wait.Go(func() { errs[i] = a.Run(ctx) })
	}
	wait.Wait()
	return errors.Join(errs...)
}
