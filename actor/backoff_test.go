package actor

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// quiet is a desk with nothing to do, but for a credit now and then.
type quiet struct {
	*desk
	waits []time.Duration
	busy  int // which question a credit comes at
	err   error
	asked []time.Time
}

func (q *quiet) Next(ctx context.Context, wait time.Duration) (Lease, error) {
	q.waits, q.asked = append(q.waits, wait), append(q.asked, time.Now())
	if len(q.waits) == q.busy {
		return lease{q.desk, credit("t1")}, nil
	}
	if q.err != nil {
		return nil, q.err
	}
	pause(ctx, wait)
	return nil, nil
}

func TestIdleWaitsGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &quiet{desk: &desk{}, busy: 7}
		q.desk.source = q
		employ(t, q.desk, 4*time.Minute)
		s := time.Second
		want := []time.Duration{2 * s, 4 * s, 8 * s, 16 * s, 30 * s, 30 * s, 30 * s, 2 * s, 4 * s, 8 * s, 16 * s, 30 * s}
		if len(q.waits) < len(want) || !slices.Equal(q.waits[:len(want)], want) {
			t.Fatalf("waits are %v, want %v", q.waits, want)
		}
	})
}

func TestFailuresAreSpacedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &quiet{desk: &desk{}, err: errors.New("the bus is away")}
		q.desk.source = q
		employ(t, q.desk, 5*time.Minute)
		if n := len(q.asked); n < 10 || n > 15 { // pauses of 1, 2, 4, 8, 16, 30, 30, ... s
			t.Fatalf("asked %d times in 5 minutes", n)
		}
	})
}
