package learner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/forager-rl/forager"
)

// finishing is a context for what must be done even though ctx may be over.
func (l *Learner) finishing(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), l.config.RetryTimeout)
}

// act is retry for a call that others see: before each attempt the lease must
// hold.
func (l *Learner) act(ctx context.Context, what string, call func() error) error {
	return l.retry(ctx, what, func() error {
		if err := l.Lease.Hold(ctx); err != nil {
			return fmt.Errorf("confirm the lease: %w", err)
		}
		return call()
	})
}

// hold waits until it is known whether the lease holds.
func (l *Learner) hold(ctx context.Context) error {
	return l.retry(ctx, "confirm the lease", func() error { return l.Lease.Hold(ctx) })
}

// retry repeats a call to another process until it works, with pauses of 0.1 to
// 5 s, and gives up after RetryTimeout or on an error that does not heal.
func (l *Learner) retry(ctx context.Context, what string, call func() error) error {
	begun := l.Clock()
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := call()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		case permanent(err):
			return fmt.Errorf("%s: %w", what, err)
		case l.Clock().Sub(begun) >= l.config.RetryTimeout:
			return fmt.Errorf("%s: given up after %s: %w", what, l.config.RetryTimeout, err)
		}
		l.Logger.Warn("retry", "call", what, "pause", pause, "error", err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// permanent errors are decisions of the other side; asking again is no use.
func permanent(err error) bool {
	for _, decided := range []error{forager.ErrFenced, forager.ErrFull, forager.ErrStale, forager.ErrSchema, forager.ErrCorrupt, forager.ErrArchitecture} {
		if errors.Is(err, decided) {
			return true
		}
	}
	return false
}
