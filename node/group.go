package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// group runs services: started one after another, stopped in the opposite
// order, so that nothing loses what it stands on.
type group struct {
	logger      *slog.Logger
	stopTimeout time.Duration

	mu       sync.Mutex
	services []*service
	failed   chan error // the first failure, named
}

type service struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
}

func newGroup(logger *slog.Logger, stopTimeout time.Duration) *group {
	return &group{logger: logger, stopTimeout: stopTimeout, failed: make(chan error, 1)}
}

// start runs a service in a goroutine of its own. A service that ends before it
// is told to has failed.
func (g *group) start(ctx context.Context, name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &service{name: name, cancel: cancel, done: make(chan struct{})}
	g.mu.Lock()
	g.services = append(g.services, s)
	g.mu.Unlock()
	go func() {
		defer close(s.done)
		err := run(ctx)
		if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
			return
		}
		if err == nil {
			err = errors.New("ended by itself")
		}
		select {
		case g.failed <- fmt.Errorf("%s: %w", name, err):
		default:
			g.logger.Error("a further role failed", "role", name, "error", err)
		}
	}()
}

// stop ends all services, last started first, and waits for each at most the
// stop time-out. It is safe twice.
func (g *group) stop() {
	g.mu.Lock()
	services := g.services
	g.services = nil
	g.mu.Unlock()
	for i := len(services) - 1; i >= 0; i-- {
		s := services[i]
		s.cancel()
		timer := time.NewTimer(g.stopTimeout)
		select {
		case <-s.done:
		case <-timer.C:
			g.logger.Error("a role did not stop in time and is left behind", "role", s.name, "timeout", g.stopTimeout)
		}
		timer.Stop()
	}
}
