package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/actor"
	"github.com/forager-rl/forager/cluster"
	"github.com/forager-rl/forager/replay"
	"github.com/forager-rl/forager/replay/flight"
	"github.com/forager-rl/forager/rewardsrv"
	"github.com/forager-rl/forager/rewardsrv/labelstore"
	"github.com/forager-rl/forager/search"
	"github.com/forager-rl/forager/security"
)

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
	service, err := replay.NewService(filepath.Join(p.dir.Path(), "replay"), p.run, p.cfg.Replay.Config, replay.ServiceDeps{
		Batches: groupReader{p.bus, p.logger}, Labels: annotations{p.bus, p.unreadable}, Archive: archive{p.dir.RolloutsPath()},
		Logger: p.logger, Registerer: p.registry, Tracer: p.tracer("replay"),
	})
	if err != nil {
		return err
	}
	p.roster.Tell(func(m *cluster.Member) {
		t := service.Stats()
		m.Table = &cluster.Table{
			Groups: t.Groups, Lent: t.Lent, Capacity: p.cfg.Replay.MaxGroups, Bytes: t.Bytes,
			Inserted: t.Inserted, Committed: t.Committed, Stale: t.Stale, Evicted: t.Evicted, Corrupt: t.Corrupt,
		}
	})
	if err := p.startFlight(ctx, service); err != nil {
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

// The flights of a replay process.
const (
	flightReplay  = "replay"  // waits to be learned from
	flightArchive = "archive" // was learned from
)

// startFlight serves the rollouts of the run, if there is an address for that, and
// announces it.
func (p *process) startFlight(ctx context.Context, table flight.Source) error {
	cfg := p.cfg.Replay.Flight
	if cfg.Listen == "" {
		return nil
	}
	cfg.TLS, cfg.Authorize = p.credentials.Server(), security.Authorizer(p.credentials.Token())
	server, err := flight.NewServer(cfg, map[string]flight.Source{flightReplay: table, flightArchive: archive{p.dir.RolloutsPath()}}, p.logger, p.registry)
	if err != nil {
		return err
	}
	listener, err := p.listen("replay.flight.listen", cfg.Listen)
	if err != nil {
		return fmt.Errorf("flight: %w", err)
	}
	p.group.start(ctx, "flight", func(ctx context.Context) error { return server.Run(ctx, listener) })
	url := flightAddress(p.credentials, reachable(listener.Addr(), p.bus.LocalIP()))
	p.roster.Tell(func(m *cluster.Member) { m.Addresses[serviceFlight] = url })
	p.observer.notice("rollouts over Arrow Flight at %s", url)
	return nil
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
		Logger: p.logger, Registerer: p.registry, Now: p.clock, Random: unpredictable(), Tracer: p.tracer("rewardsrv"),
	})
	if err != nil {
		return errors.Join(err, index.Close())
	}
	p.roster.Tell(p.tellLabels(server))
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

// tellLabels announces what a reward server has to do.
func (p *process) tellLabels(server *rewardsrv.Server) func(*cluster.Member) {
	var down func() // ends the wait for a judge
	return func(m *cluster.Member) {
		stats := server.Stats()
		m.Labels = stats.Queued
		switch {
		case stats.JudgeDown && down == nil:
			down = p.condition.wait(forager.RoleRewardServer, waitJudge)
		case !stats.JudgeDown && down != nil:
			down()
			down = nil
		}
	}
}

// startRetriever indexes the corpus, serves it over HTTP and announces the
// address.
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
	serving, err := retrieverServer(&p.cfg, p.credentials)
	if err != nil {
		return errors.Join(err, shut())
	}
	server, err := search.NewServer(serving, index, passages, p.logger, registry)
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
	url := webAddress(p.credentials, cmp.Or(p.cfg.Search.Advertise, reachable(address, p.bus.LocalIP())))
	p.roster.Tell(func(m *cluster.Member) { m.Addresses[serviceRetriever] = url })
	return nil
}

// reachable replaces "all addresses" by one of them.
func reachable(a net.Addr, by net.IP) string {
	tcp, ok := a.(*net.TCPAddr)
	if ok && tcp.IP.IsUnspecified() {
		return net.JoinHostPort(by.String(), fmt.Sprint(tcp.Port))
	}
	return a.String()
}

// retriever connects to the configured retriever, or to one of the run's own.
func (p *process) retriever(ctx context.Context) (search.Retriever, error) {
	client, err := p.findRetriever(ctx)
	if err != nil {
		return nil, err
	}
	return search.Cached(client, p.cfg.Search.Cache), nil
}

func (p *process) findRetriever(ctx context.Context) (*search.HTTPRetriever, error) {
	cfg := retrieverClient(p.cfg.Search.Client, p.credentials)
	if cfg.URL != "" {
		return search.NewHTTPRetriever(cfg)
	}
	find := func(ctx context.Context) ([]string, error) { return p.roster.Lookup(ctx, serviceRetriever) }
	defer p.condition.wait(forager.RoleActor, waitRetriever)()
	err := retryUntil(ctx, "find the run's retriever", p.cfg.Admin.StartTimeout, func(ctx context.Context) error {
		found, err := find(ctx)
		if err == nil {
			cfg.URL = found[rand.N(len(found))] // so that several share the work
		}
		return err
	})
	if err != nil {
		return nil, forager.WithHint(err, "start one with: forager retriever")
	}
	return search.NewFoundRetriever(cfg, find)
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
		p.condition.rise(forager.RoleActor)
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
	played := &actor.PlayedVersion{}
	played.Reach(ensemble.Version())
	c := &actorPool{
		process: p, ensemble: ensemble,
		watcher: &weightsWatcher{
			bus: p.bus, state: p.cluster.State, objects: objects, target: ensemble, played: played, epochs: epochs, logger: p.logger,
		},
	}
	held := newHeldCredits(p.clock)
	for i := range count {
		player, err := actor.NewPlayer(p.cfg.Episode, actor.PlayerDeps{
			Run: p.run, Actor: fmt.Sprintf("%s-%d", p.name, i), Generator: ensemble.generator(i),
			Tokenizer: l.tokenizer, Prompter: l, StopTokens: l.tokenizer.StopTokens(), Retriever: retriever, Clock: p.clock, Tracer: p.tracer("actor"),
		})
		if err != nil {
			ensemble.close()
			return nil, err
		}
		a, err := actor.New(p.cfg.Actor.Config, actor.Deps{
			Player: player, Played: played, Credits: countedCredits{credits, held}, Sink: groupWriter{p.bus}, Digests: digestWriter{p.bus},
			Tasks: tasks, Logger: p.logger,
			Registry: prometheus.WrapRegistererWith(prometheus.Labels{"actor": fmt.Sprint(i)}, p.registry),
			Tracer:   p.tracer("actor"),
		})
		if err != nil {
			ensemble.close()
			return nil, err
		}
		c.actors = append(c.actors, a)
	}
	p.roster.Tell(held.tell)
	version := func() (forager.Version, bool) { return ensemble.Version(), true }
	if err := p.registry.Register(policyGauge{forager.RoleActor, version}); err != nil {
		ensemble.close()
		return nil, err
	}
	p.roster.Tell(p.policyFact(version))
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
