package cluster

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/forager-rl/forager"
)

// TestTenureIsKept: one learner keeps its lease for long, and learns of its loss.
func TestTenureIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, 1, nil)
		c := g.only(0)
		tenure, err := c.TakeLease(t.Context(), "a", 3*time.Second, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		kept := make(chan error, 1)
		go func() { kept <- tenure.Keep(ctx) }()
		time.Sleep(time.Minute)
		if err := tenure.Hold(ctx); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.AcquireLease(t.Context(), "b", time.Second); !errors.Is(err, forager.ErrInUse) {
			t.Fatalf("the lease was not kept: %v", err)
		}
		if _, _, err := c.AcquireLease(t.Context(), "a", 3*time.Second); err != nil { // the same holder, restarted
			t.Fatal(err)
		}
		if err := <-kept; !errors.Is(err, forager.ErrFenced) {
			t.Fatalf("a lost lease ended with %v", err)
		}
		if err := tenure.Hold(ctx); !errors.Is(err, forager.ErrFenced) {
			t.Fatalf("a lost lease holds: %v", err)
		}
		cancel()
		if err := tenure.Keep(ctx); err != nil {
			t.Fatalf("a cancelled wait ended with %v", err)
		}
	})
}

// away is a group that may be out of reach.
type away struct {
	Caller
	down  bool
	calls int
}

func (a *away) Call(ctx context.Context, request []byte) ([]byte, error) {
	a.calls++
	if a.down {
		return nil, ErrUnavailable
	}
	return a.Caller.Call(ctx, request)
}

// TestPausedHolderAsksFirst: a holder that nobody renewed for, because it was
// stopped or cut off, does not act on its own belief.
func TestPausedHolderAsksFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, 1, nil)
		path := &away{Caller: g.only(0).caller}
		c := NewClient(path)
		tenure, err := c.TakeLease(t.Context(), "a", 5*time.Second, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		asked := path.calls
		time.Sleep(4 * time.Second)
		if err := tenure.Hold(t.Context()); err != nil || path.calls != asked {
			t.Fatalf("within its time: %v after %d questions", err, path.calls-asked)
		}
		time.Sleep(700 * time.Millisecond) // the margin has begun
		path.down = true
		if err := tenure.Hold(t.Context()); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("cut off: %v", err)
		}
		time.Sleep(time.Minute)
		path.down = false
		if err := tenure.Hold(t.Context()); err != nil { // nobody took it: late is not lost
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if _, err := g.only(0).TakeLease(t.Context(), "b", 5*time.Second, time.Now); err != nil {
			t.Fatal(err)
		}
		if err := tenure.Hold(t.Context()); !errors.Is(err, forager.ErrFenced) {
			t.Fatalf("after another took over: %v", err)
		}
		path.down = true
		if err := tenure.Hold(t.Context()); !errors.Is(err, forager.ErrFenced) {
			t.Fatalf("lost once, then cut off: %v", err)
		}
		path.down = false
		if err := tenure.Release(t.Context()); !errors.Is(err, forager.ErrFenced) {
			t.Fatalf("it released the lease of its successor: %v", err)
		}
	})
}
