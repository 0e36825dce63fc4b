package node

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/actor"
	"github.com/forager-rl/forager/cluster"
)

func TestCondition(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	c := newCondition(func() time.Time { return now })
	if err := c.ready(); err != nil {
		t.Errorf("a process without roles is not ready: %v", err)
	}
	c.expect(forager.RoleReplay, forager.RoleActor)
	is := func(want string) {
		t.Helper()
		got := "ready"
		if err := c.ready(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	is("replay waits for its start")
	c.rise(forager.RoleReplay)
	started := c.wait(forager.RoleActor, waitStart)
	is("actor waits for its start")
	found := c.wait(forager.RoleActor, waitRetriever)
	is("actor waits for a retriever")
	now = now.Add(3 * time.Second)
	var m cluster.Member
	c.tell(&m)
	want := cluster.Member{Roles: []forager.Role{forager.RoleReplay, forager.RoleActor}, Waits: []cluster.Wait{
		{Role: forager.RoleActor, What: waitStart, Seconds: 3}, {Role: forager.RoleActor, What: waitRetriever, Seconds: 3},
	}}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("told %+v, want %+v", m, want)
	}
	found()
	started()
	is("actor waits for its start")
	c.rise(forager.RoleActor)
	is("ready")
}

// credits gives as many credits as are asked for.
type credits struct{}

func (credits) Next(ctx context.Context, _ time.Duration) (actor.Lease, error) {
	return lease{}, ctx.Err()
}

type lease struct{ actor.Lease }

func (lease) Done() error                { return nil }
func (lease) Return(time.Duration) error { return nil }

func TestHeldCredits(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	held := newHeldCredits(func() time.Time { return now })
	reader := countedCredits{credits{}, held}
	now = now.Add(2 * time.Second)
	told := func() (m cluster.Member) {
		held.tell(&m)
		return m
	}
	if m := told(); m.Credits != 0 || len(m.Waits) != 1 || m.Waits[0].Seconds != 2 {
		t.Errorf("before the first: %+v", m)
	}
	a, errA := reader.Next(t.Context(), time.Second)
	b, errB := reader.Next(t.Context(), time.Second)
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	if m := told(); m.Credits != 2 || m.Waits != nil {
		t.Errorf("with two: %+v", m)
	}
	if err := a.Done(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // an end is an end once
		if err := b.Return(0); err != nil {
			t.Fatal(err)
		}
	}
	now = now.Add(5 * time.Second)
	if m := told(); m.Credits != 0 || len(m.Waits) != 1 || m.Waits[0].Seconds != 5 {
		t.Errorf("afterwards: %+v", m)
	}
}

// TestPolicyAge: the age of a version starts anew with each.
func TestPolicyAge(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	p := &process{clock: func() time.Time { return now }}
	version, known := forager.Version(0), false
	fact := p.policyFact(func() (forager.Version, bool) { return version, known })
	told := func() (m cluster.Member) {
		fact(&m)
		return m
	}
	if m := told(); m.Policy != nil {
		t.Errorf("before the first: %+v", m)
	}
	known = true
	told()
	now = now.Add(4 * time.Second)
	if m := told(); *m.Policy != 0 || m.PolicySeconds != 4 {
		t.Errorf("version %d for %v s", *m.Policy, m.PolicySeconds)
	}
	version = 5
	if m := told(); *m.Policy != 5 || m.PolicySeconds != 0 {
		t.Errorf("version %d for %v s", *m.Policy, m.PolicySeconds)
	}
}
