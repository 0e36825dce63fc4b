package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/forager-rl/forager"
)

// provision makes the streams, their consumers and the object stores; what exists
// stays.
func (b *Bus) provision(ctx context.Context) error {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	for i, s := range allStreams() {
		stream, err := b.js.CreateOrUpdateStream(ctx, b.cfg.streams()[i])
		if err != nil {
			return createError(string(s), err)
		}
		if !s.fetched() {
			continue
		}
		if b.server != nil {
			// The server was not running until now, so whoever held messages is
			// gone or has lost them. A new consumer hands them out at once; the
			// old one would wait for Config.AckWait first.
			if err := stream.DeleteConsumer(ctx, workers); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
				return createError(string(s), err)
			}
		}
		if _, err = stream.CreateOrUpdateConsumer(ctx, b.cfg.consumer()); err != nil {
			return createError(string(s), err)
		}
	}
	for _, store := range b.cfg.stores() {
		if _, err := b.js.CreateOrUpdateObjectStore(ctx, store); err != nil {
			return createError("objects", err)
		}
	}
	return nil
}

// reprovision provisions again whenever the connection has come back, until ctx
// ends: a server may return without what it had.
func (b *Bus) reprovision(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.returned:
		}
		for pause := firstPause; ; pause = min(2*pause, lastPause) {
			err := b.provision(ctx)
			if err == nil {
				break
			}
			b.log.Warn("bus: the streams are not made sure of, trying again", "error", err)
			if !wait(ctx, pause) {
				return
			}
		}
	}
}

// bind looks up what the methods of a Bus work with. Whoever makes it may come
// later: bind waits for at most cfg.ConnectTimeout.
func (b *Bus) bind(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.ConnectTimeout)
	defer cancel()
	for _, s := range allStreams() {
		err := b.await(ctx, "stream "+string(s), func(ctx context.Context) (err error) {
			switch {
			case s.fetched():
				b.consumers[s], err = b.js.Consumer(ctx, b.names.stream(s), workers)
			case s == claims:
				b.claims, err = b.js.Stream(ctx, b.names.stream(s))
			default:
				_, err = b.js.Stream(ctx, b.names.stream(s))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, bucket := range b.names.buckets() {
		err := b.await(ctx, "object store "+bucket, func(ctx context.Context) (err error) {
			b.objects[bucket], err = b.js.ObjectStore(ctx, bucket)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// await repeats a look-up until what it looks for is there.
func (b *Bus) await(ctx context.Context, what string, look func(context.Context) error) error {
	told := false
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		once, cancel := context.WithTimeout(ctx, min(b.cfg.Timeout, lookTimeout))
		err := look(once)
		cancel()
		if err == nil {
			return nil
		}
		if denied := b.denied.Load(); denied != nil {
			return forager.WithHint(fmt.Errorf("wait for %s of run %s: %w", what, b.cfg.Run, *denied),
				"the server lets these credentials do this in another run, or not at all: give it and this process the same run id")
		}
		if withoutJetStream(err) {
			return createError(what, err)
		}
		if !told {
			b.log.Info("bus: waiting", "for", what, "run", b.cfg.Run, "at_most", b.cfg.ConnectTimeout)
			told = true
		}
		if !wait(ctx, pause) {
			if errors.Is(err, context.DeadlineExceeded) {
				err = errors.New("no answer")
			}
			return forager.WithHint(fmt.Errorf("wait for %s of run %s: not there within %v: %w", what, b.cfg.Run, b.cfg.ConnectTimeout, err),
				"start the process that makes it: forager nats or, with a server of your own, forager cluster")
		}
	}
}

// lookTimeout bounds one look-up: a refused one is not answered at all.
const lookTimeout = time.Second

// Pauses between tries.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// wait pauses and reports false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Codes of nats-server that nats.go has no constant for.
const (
	codeNoResources = 10023
	codeNoMemory    = 10028
	codeNoStorage   = 10047
	codeStoreFailed = 10077
)

func createError(what string, err error) error {
	err = fmt.Errorf("create %s: %w", what, err)
	var api *jetstream.APIError
	switch {
	case withoutJetStream(err), errors.Is(err, nats.ErrNoResponders):
		return forager.WithHint(err, "the server has no JetStream: start nats-server with -js")
	case errors.As(err, &api) && (api.ErrorCode == codeNoResources || api.ErrorCode == codeNoMemory || api.ErrorCode == codeNoStorage):
		return forager.WithHint(err, "free disk space or lower the bus limits max_rollouts, max_annotations and max_objects")
	}
	return err
}

func withoutJetStream(err error) bool {
	return errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount)
}
