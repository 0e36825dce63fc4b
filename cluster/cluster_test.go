package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/forager-rl/forager"
)

// group is three nodes in memory inside a synctest bubble, so that elections
// take virtual time.
type group struct {
	t          *testing.T
	nodes      []*Cluster
	transports []*raft.InmemTransport
}

func newGroup(t *testing.T, n int) *group {
	t.Helper()
	g := &group{t: t}
	var voters []raft.Server
	for i := range n {
		address, tr := raft.NewInmemTransportWithTimeout(raft.ServerAddress(fmt.Sprint("node-", i)), 100*time.Millisecond)
		voters = append(voters, raft.Server{ID: raft.ServerID(address), Address: address})
		g.transports = append(g.transports, tr)
	}
	for i, a := range g.transports {
		for j, b := range g.transports {
			if i != j {
				a.Connect(b.LocalAddr(), b)
			}
		}
	}
	for i, tr := range g.transports {
		cfg := DefaultConfig()
		cfg.NodeID = string(voters[i].ID)
		cfg.LeaderTimeout, cfg.ApplyTimeout = 2*time.Second, 2*time.Second
		store := raft.NewInmemStore()
		c, err := start(cfg, node{
			logs: store, stable: store, snapshots: raft.NewInmemSnapshotStore(), transport: tr,
			voters: voters, release: func() error { return nil },
		}, slog.New(slog.DiscardHandler), time.Now)
		if err != nil {
			t.Fatal(err)
		}
		g.nodes = append(g.nodes, c)
	}
	return g
}

func (g *group) close() {
	for _, c := range g.nodes {
		if err := c.Close(); err != nil {
			g.t.Error(err)
		}
	}
}

// leader waits, bounded, for a leader among all nodes but one (-1: none).
func (g *group) leader(except int) int {
	g.t.Helper()
	for range 5000 {
		for i, c := range g.nodes {
			if i != except && c.leads() {
				return i
			}
		}
		time.Sleep(time.Millisecond) // virtual
	}
	g.t.Fatal("no leader within 5 s")
	return -1
}

func (g *group) isolate(i int) {
	for j, tr := range g.transports {
		if j != i {
			tr.Disconnect(g.transports[i].LocalAddr())
			g.transports[i].Disconnect(tr.LocalAddr())
		}
	}
}

func (g *group) heal(i int) {
	for j, tr := range g.transports {
		if j != i {
			tr.Connect(g.transports[i].LocalAddr(), g.transports[i])
			g.transports[i].Connect(tr.LocalAddr(), tr)
		}
	}
}

func (g *group) client(i int) *Client { return NewClient(local{g.nodes[i]}) }

// local is a Caller of a node in this process.
type local struct{ node *Cluster }

func (l local) Call(ctx context.Context, request []byte) ([]byte, error) {
	return l.node.Handle(ctx, request)
}

// TestThreeNodes cuts off the leader and checks that nothing acknowledged is
// lost, that the old side can neither read nor write, and that all replicas end
// with one digest.
func TestThreeNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, 3)
		defer g.close()
		ctx := t.Context()
		old := g.leader(-1)
		first := g.client(old)
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
		if _, err := g.client(follower).State(ctx); !errors.Is(err, ErrNotLeader) {
			t.Fatalf("a follower answered a read: %v", err)
		}

		g.isolate(old)
		cut := time.Now()
		if err := first.PublishManifest(ctx, manifest(20, lease.Epoch, "lost")); !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrNotLeader) {
			t.Fatalf("a leader without a majority published: %v", err)
		}
		if _, err := first.State(ctx); !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrNotLeader) {
			t.Fatalf("a leader without a majority answered a read: %v", err)
		}
		next := g.leader(old)
		t.Logf("new leader %v after the cut (virtual time, includes two refused requests)", time.Since(cut))
		second := g.client(next)
		m, err := second.Manifest(ctx)
		if err != nil || m.Version != 19 {
			t.Fatalf("after fail-over: version %d, %v", m.Version, err)
		}
		time.Sleep(5 * time.Second)
		taken, _, err := second.AcquireLease(ctx, "b", 5*time.Second)
		if err != nil || taken.Epoch != lease.Epoch+1 {
			t.Fatalf("take over: %+v, %v", taken, err)
		}

		g.heal(old)
		time.Sleep(2 * time.Second)
		second = g.client(g.leader(-1))
		if err := second.PublishManifest(ctx, manifest(20, lease.Epoch, "late")); !errors.Is(err, forager.ErrFenced) {
			t.Fatalf("the old learner published: %v", err)
		}
		if err := second.PublishManifest(ctx, manifest(20, taken.Epoch, "20")); err != nil {
			t.Fatal(err)
		}
		g.agree()
	})
}

// agree waits until all replicas have one digest. The library backs off from a
// peer that was away by up to 41 s, so the bound is a minute (virtual).
func (g *group) agree() {
	g.t.Helper()
	var digests []string
	for range 60 {
		digests = digests[:0]
		for _, c := range g.nodes {
			s := c.fsm.read()
			d, err := s.Digest()
			if err != nil {
				g.t.Fatal(err)
			}
			digests = append(digests, d)
		}
		if len(slices.Compact(slices.Clone(digests))) == 1 {
			return
		}
		time.Sleep(time.Second) // virtual
	}
	g.t.Fatalf("replicas differ after a minute: %v", digests)
}

// TestRunExpiresServices: Run removes services that were not extended.
func TestRunExpiresServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, 1)
		defer g.close()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- g.nodes[0].Run(ctx) }()
		c := g.client(0)
		if err := c.Register(ctx, Service{Name: "replay", Instance: "1", Address: "h:1"}, 5*time.Second); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Lookup(ctx, "replay"); err != nil || len(got) != 1 || got[0].Address != "h:1" {
			t.Fatalf("got %+v, %v", got, err)
		}
		time.Sleep(7 * time.Second)
		if _, err := c.Lookup(ctx, "replay"); !errors.Is(err, forager.ErrNotFound) {
			t.Fatalf("got %v", err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

// TestNoLeaderIsBounded: a node alone of three ends its waits by name and time.
func TestNoLeaderIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, 3)
		defer g.close()
		for i := range 3 {
			g.isolate(i)
		}
		begin := time.Now()
		err := g.nodes[0].Run(t.Context())
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "wait for a raft leader") {
			t.Fatalf("got %v", err)
		}
		if d := time.Since(begin); d > 3*time.Second {
			t.Fatalf("waited for %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := g.client(0).SetRun(ctx, Run{ID: "r"}); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("got %v", err)
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
		g := newGroup(t, 1)
		defer g.close()
		for _, text := range []string{
			``, `{`, `[]`, `{}`, `{"read":"everything"}`, `{"command":{}}`, `{"command":{"fly":{}}}`,
			`{"read":"state","command":{"expire_services":{}}}`, `{"read":"` + strings.Repeat("x", maxCommandBytes) + `"}`,
		} {
			out, err := g.nodes[0].Handle(t.Context(), []byte(text))
			if err != nil {
				t.Fatalf("%.40s: %v", text, err)
			}
			var r response
			if err := json.Unmarshal(out, &r); err != nil || r.Error == nil {
				t.Errorf("%.40s: answered %s, %v", text, out, err)
			}
		}
		// A client's clock is not believed.
		if _, err := g.nodes[0].Handle(t.Context(), []byte(`{"command":{"now":"2999-01-01T00:00:00Z","acquire_lease":{"holder":"a","ttl":1000000000}}}`)); err != nil {
			t.Fatal(err)
		}
		if s := g.nodes[0].fsm.read(); s.Lease.Expires.Year() > 2500 {
			t.Errorf("the lease ends at %v", s.Lease.Expires)
		}
	})
}

func TestRaftLogsToSlog(t *testing.T) {
	var buf bytes.Buffer
	l := raftLogger(slog.New(slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: slog.LevelDebug})))
	l.Warn("heartbeat timeout reached", "last-leader", "x")
	l.Error("failed", "error", errors.New("disk"))
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
