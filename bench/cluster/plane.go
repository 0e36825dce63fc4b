package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager/actor"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/replay"
	"github.com/forager-rl/forager/search"
)

// plane is the middle of a cluster: the bus with its server, replay and a
// retriever, in a folder of their own.
type plane struct {
	bus       *bus.Bus
	index     search.Retriever
	retriever string // URL of its server

	stop    context.CancelFunc
	begin   func(run func(context.Context)) // a service, until stop
	running sync.WaitGroup
	mu      sync.Mutex
	errs    []error
	closers []func() error
}

// openPlane starts the services. Close ends them.
func openPlane(ctx context.Context, folder string, logger *slog.Logger) (*plane, error) {
	services, cancel := context.WithCancel(ctx)
	p := &plane{stop: cancel}
	p.begin = func(run func(context.Context)) { p.running.Go(func() { run(services) }) }
	if err := p.open(ctx, folder, logger); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *plane) open(ctx context.Context, folder string, logger *slog.Logger) error {
	cfg := bus.DefaultConfig()
	cfg.Run, cfg.StoreDir, cfg.Provision = runID, filepath.Join(folder, "nats"), true
	var err error
	if p.bus, err = bus.Open(ctx, cfg, logger); err != nil {
		return err
	}
	p.closers = append(p.closers, p.bus.Close)
	service, err := replay.NewService(filepath.Join(folder, "replay"), runID, replay.DefaultConfig(), replay.ServiceDeps{
		Batches: groups{p.bus}, Labels: labels{p.bus}, Logger: logger,
	})
	if err != nil {
		return err
	}
	p.start("replay", service.Run)
	p.start("replay service", func(ctx context.Context) error { return p.bus.Serve(ctx, serviceReplay, service.Handle) })

	index, err := search.NewBM25(ctx, corpus(), search.DefaultBM25Config())
	if err != nil {
		return err
	}
	p.closers = append(p.closers, index.Close)
	p.index = index
	settings := search.DefaultServerConfig()
	settings.Listen = "127.0.0.1:0"
	server, err := search.NewServer(settings, index, entities, logger, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	address, err := server.Listen()
	if err != nil {
		return err
	}
	p.retriever = "http://" + address.String()
	p.start("retriever", server.Run)
	return nil
}

// start runs a service until the plane is closed. One that fails is told of by
// Close.
func (p *plane) start(name string, run func(context.Context) error) {
	p.begin(func(ctx context.Context) {
		if err := run(ctx); err != nil && ctx.Err() == nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.errs = append(p.errs, fmt.Errorf("%s: %w", name, err))
		}
	})
}

// Close ends the services and gives what went wrong in them.
func (p *plane) Close() error {
	p.stop()
	p.running.Wait()
	for i := len(p.closers) - 1; i >= 0; i-- {
		p.errs = append(p.errs, p.closers[i]())
	}
	p.closers = nil
	return errors.Join(p.errs...)
}

// joinBus joins the bus as another process would.
func joinBus(ctx context.Context, url string, logger *slog.Logger) (*bus.Bus, error) {
	cfg := bus.DefaultConfig()
	cfg.Run, cfg.URL = runID, url
	return bus.Open(ctx, cfg, logger)
}

// retry repeats a call to a service that has just been started, for ten seconds.
func retry(ctx context.Context, call func() error) error {
	for end := time.Now().Add(10 * time.Second); ; {
		err := call()
		if err == nil || time.Now().After(end) {
			return err
		}
		if sleep(ctx, 20*time.Millisecond) != nil {
			return err
		}
	}
}

// troupe is what an actor process is made of.
type troupe struct {
	name      string
	generator *paced
	retriever search.Retriever
	groups    int // played at once
}

// newActor puts an actor together as package node does.
func (t troupe) newActor(b *bus.Bus, logger *slog.Logger) (*actor.Actor, error) {
	rules := actor.DefaultEpisodeConfig()
	rules.MaxTurns = t.generator.searches + 1
	player, err := actor.NewPlayer(rules, actor.PlayerDeps{
		Run: runID, Actor: t.name, Generator: t.generator, Tokenizer: letters{}, Retriever: t.retriever, Clock: time.Now,
	})
	if err != nil {
		return nil, err
	}
	cfg := actor.DefaultConfig()
	cfg.Groups = t.groups
	return actor.New(cfg, actor.Deps{
		Player: player, Played: &t.generator.played, Credits: creditQueue{b}, Sink: sink{b}, Digests: sink{b}, Tasks: tasks{},
		Logger: logger, Registry: prometheus.NewRegistry(),
	})
}

// newLogger tells of warnings and worse.
func newLogger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}
