package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/forager-rl/forager"
)

// TestThreeNodes cuts off the leader and checks that nothing acknowledged is
// lost, that the old side can neither read nor write, and that all replicas end
// with one digest.
func TestThreeNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, 3, nil)
		ctx := t.Context()
		old := g.leader(-1)
		first := g.only(old)
		if err := first.SetRun(ctx, Run{"r", "d"}); err != nil {
			t.Fatal(err)
		}
		lease, _, err := first.AcquireLease(ctx, "a", 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		for v := range forager.Version(20) {
			if err := first.PublishManifest(ctx, manifest(v, lease.Epoch, fmt.Sprint(v))); err != nil {
				t.Fatal(err)
			}
		}
		follower := (old + 1) % 3
		if _, err := g.members[follower].node.State(ctx); !errors.Is(err, ErrNotLeader) {
			t.Fatalf("a follower answered a read: %v", err)
		}
		if s, err := g.only(follower).State(ctx); err != nil || s.Manifest.Version != 19 {
			t.Fatalf("a follower passed a read on: %+v, %v", s.Manifest, err)
		}

		g.isolate(old)
		cut := time.Now()
		alone := g.members[old].node
		if _, err := alone.Apply(ctx, Command{PublishManifest: &PublishManifest{manifest(20, lease.Epoch, "lost")}}); !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrNotLeader) {
			t.Fatalf("a leader without a majority published: %v", err)
		}
		if _, err := alone.State(ctx); !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrNotLeader) {
			t.Fatalf("a leader without a majority answered a read: %v", err)
		}
		next := g.leader(old)
		t.Logf("new leader %v after the cut (virtual time, includes two refused requests)", time.Since(cut))
		second := g.only(next)
		m, err := second.Manifest(ctx)
		if err != nil || m.Version != 19 {
			t.Fatalf("after fail-over: version %d, %v", m.Version, err)
		}
		time.Sleep(5 * time.Second)
		taken, _, err := second.AcquireLease(ctx, "b", 5*time.Second)
		if err != nil || taken.Epoch != lease.Epoch+1 {
			t.Fatalf("take over: %+v, %v", taken, err)
		}

		g.heal()
		time.Sleep(2 * time.Second)
		second = g.client(1)
		if err := second.PublishManifest(ctx, manifest(20, lease.Epoch, "late")); !errors.Is(err, forager.ErrFenced) {
			t.Fatalf("the old learner published: %v", err)
		}
		if err := second.PublishManifest(ctx, manifest(20, taken.Epoch, "20")); err != nil {
			t.Fatal(err)
		}
		g.agree()
	})
}

// TestView: every node names the leader and the voters.
func TestView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, 3, nil)
		time.Sleep(time.Second) // virtual: until all have heard of the leader
		leader := g.members[0].node.Status().Leader
		for _, m := range g.members {
			v := m.node.View()
			if v.Node != m.node.cfg.NodeID || leader == "" || v.Leader != leader || v.Term == 0 || len(v.Voters) != 3 {
				t.Errorf("%s sees %+v, the leader is %q", m.node.cfg.NodeID, v, leader)
			}
		}
	})
}

// TestNoLeaderIsBounded: a node alone of three ends its waits by name and time.
func TestNoLeaderIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, 3, nil)
		for i := range 3 {
			g.isolate(i)
		}
		time.Sleep(5 * time.Second)
		begin := time.Now()
		err := g.members[0].node.WaitLeader(t.Context())
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "wait for a raft leader") {
			t.Fatalf("got %v", err)
		}
		if d := time.Since(begin); d > 3*time.Second {
			t.Fatalf("waited for %v", d)
		}
		begin = time.Now()
		if err := g.only(0).SetRun(t.Context(), Run{ID: "r"}); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("got %v", err)
		}
		if d := time.Since(begin); d < retryFor-longPause || d > retryFor+time.Second {
			t.Fatalf("a client tried for %v", d)
		}
	})
}

func TestErrorsCrossTheWire(t *testing.T) {
	for _, s := range sentinelCodes() {
		for _, err := range []error{
			fmt.Errorf("publish weights v%d: %w", 3, s.sentinel),
			forager.WithHint(fmt.Errorf("open: %w", s.sentinel), "do this next"),
		} {
			data, marshalErr := json.Marshal(response{Error: toWire(err)})
			if marshalErr != nil {
				t.Fatal(marshalErr)
			}
			var r response
			if err := json.Unmarshal(data, &r); err != nil {
				t.Fatal(err)
			}
			got := r.Error.err()
			if !errors.Is(got, s.sentinel) || got.Error() != err.Error() {
				t.Errorf("%v arrived as %v", err, got)
			}
			_, had := errors.AsType[*forager.HintError](err)
			if _, has := errors.AsType[*forager.HintError](got); had != has {
				t.Errorf("%v lost its hint", err)
			}
		}
	}
	if toWire(nil).err() != nil {
		t.Error("nil did not stay nil")
	}
}

func TestHandleRefusesBadRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, 1, nil)
		node := g.members[0].node
		for _, text := range []string{
			``, `{`, `[]`, `{}`, `{"read":"everything"}`, `{"command":{}}`, `{"command":{"fly":{}}}`,
			`{"read":"state","command":{"release_lease":{}}}`, `{"command":{"rebase_lease":{"extend":true}}}`, `{"change":{"op":"fly"}}`,
			`{"change":{"op":"admit","id":"x y","address":"h:1"}}`, `{"change":{"op":"admit","id":"x","address":"h"}}`, `{"change":{"op":"remove","id":"x"}}`,
			`{"read":"` + strings.Repeat("x", maxCommandBytes) + `"}`,
		} {
			out, err := node.Handle(t.Context(), []byte(text))
			if err != nil {
				t.Fatalf("%.40s: %v", text, err)
			}
			var r response
			if err := json.Unmarshal(out, &r); err != nil || r.Error == nil {
				t.Errorf("%.40s: answered %s, %v", text, out, err)
			}
		}
		// A client's clock is not believed.
		if _, err := node.Handle(t.Context(), []byte(`{"command":{"now":"2999-01-01T00:00:00Z","acquire_lease":{"holder":"a","ttl":1000000000}}}`)); err != nil {
			t.Fatal(err)
		}
		if s := node.fsm.read(); s.Lease.Expires.Year() > 2500 {
			t.Errorf("the lease ends at %v", s.Lease.Expires)
		}
	})
}

func TestRaftLogsToSlog(t *testing.T) {
	var buf bytes.Buffer
	l := raftLogger(slog.New(slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: slog.LevelDebug})), time.Now)
	l.Warn("heartbeat timeout reached", "last-leader", "x")
	for range 3 {
		l.Error("failed", "error", errors.New("disk"))
		l.Error("failed", "peer", "b")
	}
	if n := strings.Count(buf.String(), "level=WARN"); n != 2 {
		t.Errorf("%d warnings of two things: %s", n, buf.String())
	}
	for _, want := range []string{`level=DEBUG msg="raft: heartbeat timeout reached" last-leader=x`, `level=WARN msg="raft: failed" error=disk`} {
		if !strings.Contains(buf.String(), want) {
			t.Errorf("%s is missing in %s", want, buf.String())
		}
	}
}

func TestConfigValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"node_id":          func(c *Config) { c.NodeID = "" },
		"election_timeout": func(c *Config) { c.ElectionTimeout = time.Millisecond },
		"leader_timeout":   func(c *Config) { c.LeaderTimeout = 0 },
		"apply_timeout":    func(c *Config) { c.ApplyTimeout = 0 },
		"lease_ttl":        func(c *Config) { c.LeaseTTL = time.Millisecond },
		"snapshot_entries": func(c *Config) { c.SnapshotEntries = 0 },
	} {
		cfg := DefaultConfig()
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "cluster."+name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
