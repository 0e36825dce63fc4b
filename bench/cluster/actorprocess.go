package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"sync"
	"time"

	"github.com/forager-rl/forager/search"
)

// actorQuestion asks an actor process for what it has used; a profile is begun
// or ended when it is named.
type actorQuestion struct {
	BeginProfile string `json:"begin_profile,omitempty"` // file
	EndProfile   bool   `json:"end_profile,omitempty"`
}

// actorProcess plays as an actor of a cluster does, in a process of its own.
func actorProcess(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("actor", flag.ContinueOnError)
	url := flags.String("url", "", "`address` of the bus")
	address := flags.String("retriever", "", "`address` of the retriever; none searches in memory")
	name := flags.String("name", "actor", "`name` in the rollouts")
	groups := flags.Int("groups", 1, "`groups` played at once")
	searches := flags.Int("searches", 2, "`turns` before the answer")
	latency := flags.Duration("latency", 50*time.Millisecond, "`time` of a turn")
	if err := flags.Parse(args); err != nil {
		return err
	}
	logger := newLogger()
	b, err := joinBus(ctx, *url, logger)
	if err != nil {
		return err
	}
	retriever, shut, err := openRetriever(ctx, *address)
	if err != nil {
		return errors.Join(err, b.Close())
	}
	a, err := troupe{
		name: *name, generator: &paced{latency: always(*latency), searches: *searches}, retriever: retriever, groups: *groups,
	}.newActor(b, logger)
	if err != nil {
		return errors.Join(err, shut(), b.Close())
	}
	playing, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { err = a.Run(playing) })
	served := serve(func(q actorQuestion) (any, error) {
		if q.EndProfile {
			pprof.StopCPUProfile()
		}
		return used(), beginProfile(q.BeginProfile)
	})
	stop()
	running.Wait()
	return errors.Join(served, err, shut(), b.Close())
}

// openRetriever asks a server, or without an address an index of this process.
func openRetriever(ctx context.Context, address string) (search.Retriever, func() error, error) {
	if address == "" {
		index, err := search.NewBM25(ctx, corpus(), search.DefaultBM25Config())
		if err != nil {
			return nil, nil, err
		}
		return index, index.Close, nil
	}
	cfg := search.DefaultClientConfig()
	cfg.URL = address
	client, err := search.NewHTTPRetriever(cfg)
	return client, func() error { return nil }, err
}

// beginProfile begins a processor profile of this process, if a file is named.
// pprof.StopCPUProfile ends it.
func beginProfile(file string) error {
	if file == "" {
		return nil
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return fmt.Errorf("profile: %w", errors.Join(err, f.Close()))
	}
	return nil
}
