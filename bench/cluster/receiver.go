package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"runtime/pprof"
	"sync"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/cluster"
	"github.com/forager-rl/forager/policy"
)

// receiverQuestion asks a receiver to tell when it has swapped to a version, or
// to read plain bytes from an address.
type receiverQuestion struct {
	AwaitVersion forager.Version `json:"await_version,omitempty"`
	Profile      string          `json:"profile,omitempty"` // file for a profile until then
	CopyFrom     string          `json:"copy_from,omitempty"`
	Bytes        int             `json:"bytes,omitempty"`
}

// swapAnswer tells how weights came in.
type swapAnswer struct {
	Idle time.Duration `json:"idle"` // generation lost meanwhile, mean of the players
	CPU  time.Duration `json:"cpu"`  // of this process since the question
}

// receiver holds weights and plays, as far as the bus sees.
type receiver struct {
	bus     *bus.Bus
	cluster *cluster.Client
	playing *paced
	weights []byte
}

// Players of a receiver and their pace.
const (
	players    = 8
	playerPace = 50 * time.Millisecond
)

// receiverProcess does what an actor's watcher of weights does.
func receiverProcess(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("receiver", flag.ContinueOnError)
	url := flags.String("url", "", "`address` of the bus")
	if err := flags.Parse(args); err != nil {
		return err
	}
	// Weights have no pointers, so collecting early costs next to nothing, and
	// what is read leaves less garbage beside them.
	debug.SetGCPercent(25)
	b, err := joinBus(ctx, *url, newLogger())
	if err != nil {
		return err
	}
	r := &receiver{bus: b, cluster: cluster.NewClient(caller{b, serviceCluster}), playing: &paced{latency: always(playerPace)}}
	running, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	for range players {
		all.Go(func() {
			for running.Err() == nil {
				_, _ = r.playing.Generate(running, policy.Request{MaxTokens: 1}) // fails when it is told to stop
			}
		})
	}
	notices := make(chan struct{}, 1)
	var watched error
	all.Go(func() {
		watched = b.Watch(running, topicWeights, func([]byte) {
			select {
			case notices <- struct{}{}:
			default:
			}
		})
	})
	served := serve(func(q receiverQuestion) (any, error) {
		if q.CopyFrom != "" {
			before := used().CPU
			err := r.copyFrom(q.CopyFrom, q.Bytes)
			return swapAnswer{CPU: used().CPU - before}, err
		}
		return r.await(ctx, q, notices)
	})
	stop()
	all.Wait()
	return errors.Join(served, watched, b.Close())
}

// await waits for a notice and swaps.
func (r *receiver) await(ctx context.Context, q receiverQuestion, notices <-chan struct{}) (a swapAnswer, err error) {
	if err := beginProfile(q.Profile); err != nil {
		return a, err
	}
	defer pprof.StopCPUProfile()
	before := used().CPU
	select {
	case <-notices:
	case <-ctx.Done():
		return a, ctx.Err()
	}
	begun, turns := time.Now(), r.playing.turns.Load()
	m, err := r.cluster.Manifest(ctx)
	if err != nil {
		return a, err
	}
	if m.Version != q.AwaitVersion {
		return a, fmt.Errorf("told of version %d, the manifest has %d", q.AwaitVersion, m.Version)
	}
	data, err := r.bus.GetObjectOf(ctx, m.Object, m.Bytes, m.Digest)
	if err != nil {
		return a, err
	}
	r.weights = data
	r.playing.played.Reach(m.Version)
	took := time.Since(begun)
	played := time.Duration(r.playing.turns.Load()-turns) * playerPace / players
	a.Idle, a.CPU = max(0, took-played), used().CPU-before
	return a, nil
}

// copyFrom reads bytes from a connection: the least that a transfer costs. It
// begins once the other side sends.
func (r *receiver) copyFrom(address string, bytes int) error {
	r.weights = nil // so that both ways start with the same memory
	debug.FreeOSMemory()
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close() // only read from
	data := make([]byte, bytes)
	if _, err := io.ReadFull(c, data); err != nil {
		return fmt.Errorf("copy from %s: %w", address, err)
	}
	r.weights = data
	return nil
}
