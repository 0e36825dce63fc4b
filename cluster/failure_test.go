package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/forager-rl/forager"
)

// TestClocksApart: the lead moves between clocks an hour apart. The holder's lease
// neither ends at once nor lives on.
func TestClocksApart(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"ahead": time.Hour, "behind": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGroup(t, 3, nil)
				ctx, client := t.Context(), g.client(1)
				old := g.leader(-1)
				next := (old + 1) % 3
				lease, _, err := client.AcquireLease(ctx, "a", 5*time.Second)
				if err != nil {
					t.Fatal(err)
				}
				g.crash(next)
				g.members[next].clock = ahead
				g.boot(next)
				time.Sleep(2 * time.Second)
				if err := client.Transfer(ctx, nodeName(next)); err != nil {
					t.Fatal(err)
				}
				if got := g.leader(old); got != next {
					t.Fatalf("node %d leads, not %d", got, next)
				}
				moved := time.Now()
				if _, _, err := client.AcquireLease(ctx, "b", 5*time.Second); !errors.Is(err, forager.ErrInUse) {
					t.Fatalf("the lease died early: %v", err)
				}
				if _, err := client.RenewLease(ctx, lease); err != nil {
					t.Fatal(err)
				}
				for {
					_, _, err := client.AcquireLease(ctx, "b", 5*time.Second)
					if err == nil {
						break
					}
					if !errors.Is(err, forager.ErrInUse) || time.Since(moved) > time.Minute {
						t.Fatalf("after %v: %v", time.Since(moved), err)
					}
					time.Sleep(100 * time.Millisecond)
				}
				if held := time.Since(moved); held < 5*time.Second || held > 6*time.Second {
					t.Fatalf("a silent holder kept the lease for %v, want its 5s", held)
				}
			})
		})
	}
}

// TestStamp: stamps go on from the start of the process by the monotonic clock,
// so that what is done to the wall clock moves none.
func TestStamp(t *testing.T) {
	begun := time.Now()
	c := &Cluster{begun: begun, now: func() time.Time { return begun.Add(time.Minute) }}
	if got := c.stamp(); !got.Equal(begun.Round(0).Add(time.Minute)) || got.Location() != time.UTC || strings.Contains(got.String(), "m=") {
		t.Fatalf("got %v, a minute after %v", got, begun)
	}
}

// TestFullVolume: the leader's volume is full. It steps down and says so, the
// others go on, and with space it comes back with everything.
func TestFullVolume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, 3, nil)
		ctx, client := t.Context(), g.client(1)
		if err := client.SetRun(ctx, Run{"r", "d"}); err != nil {
			t.Fatal(err)
		}
		lease, _, err := client.AcquireLease(ctx, "a", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		old := g.leader(-1)
		g.members[old].disk.full.Store(true)
		for v := range forager.Version(5) {
			if err := client.PublishManifest(ctx, manifest(v, lease.Epoch, "x")); err != nil {
				t.Fatalf("v%d: %v", v, err)
			}
		}
		if g.leader(old) == old {
			t.Fatal("it still leads")
		}
		g.members[old].disk.full.Store(false) // too late: what was refused may have left a gap
		time.Sleep(time.Minute)
		ended := g.crash(old)
		if !errors.Is(ended, syscall.ENOSPC) || !strings.Contains(ended.Error(), "the volume is full: free space") {
			t.Fatalf("it ended with %v", ended)
		}
		g.boot(old)
		g.agree()
	})
}

// TestAway: a voter that was away while the log was cut catches up by snapshot.
func TestAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, 3, func(_ int, m *member) { m.cfg.SnapshotEntries = 4 })
		ctx, client := t.Context(), g.client(1)
		if err := client.SetRun(ctx, Run{"r", "d"}); err != nil {
			t.Fatal(err)
		}
		lease, _, err := client.AcquireLease(ctx, "a", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		away := (g.leader(-1) + 1) % 3
		g.crash(away)
		for v := range forager.Version(50) {
			if err := client.PublishManifest(ctx, manifest(v, lease.Epoch, "x")); err != nil {
				t.Fatal(err)
			}
		}
		leader := g.leader(-1)
		if err := g.up(leader).raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		missed, err := g.members[away].disk.LastIndex()
		if err != nil {
			t.Fatal(err)
		}
		if first, err := g.members[leader].disk.FirstIndex(); err != nil || first <= missed+1 {
			t.Fatalf("the log begins at %d, the node has %d: nothing was cut (%v)", first, missed, err)
		}
		g.boot(away)
		g.agree()
		if s := g.up(away).fsm.read(); s.Manifest == nil || s.Manifest.Version != 49 {
			t.Fatalf("caught up to %+v", s.Manifest)
		}
	})
}

// TestNewerProgram: an entry that this program cannot read stays in its log, is
// counted, and the node neither leads nor forgets it in a snapshot.
func TestNewerProgram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, 3, nil)
		ctx := t.Context()
		if err := g.client(1).SetRun(ctx, Run{"r", "d"}); err != nil {
			t.Fatal(err)
		}
		leader := g.leader(-1)
		f := g.up(leader).raft.Apply([]byte(`{"now":"2026-01-01T00:00:00Z","fly":{}}`), time.Second)
		if err := f.Error(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		for i := range g.members {
			c := g.up(i)
			if n := c.Status().Unknown; n != 1 {
				t.Errorf("node %d counts %d", i, n)
			}
			if err := c.raft.Snapshot().Error(); err == nil || !strings.Contains(err.Error(), "newer program") {
				t.Errorf("node %d wrote a snapshot: %v", i, err)
			}
		}
		// All three are of this program: nobody can lead, and each says why.
		if _, err := g.client(1).State(ctx); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "run the same program on all nodes") {
			t.Fatalf("got %v", err)
		}
		g.crash(0)
		g.boot(0)
		time.Sleep(5 * time.Second)
		if !g.up(0).fsm.behind() {
			t.Error("the entry is forgotten after a restart")
		}
	})
}

func TestEntriesOfOtherPrograms(t *testing.T) {
	for name, c := range map[string]struct {
		data    string
		refused error
		unknown uint64
		behind  bool
	}{
		"a newer one":       {`{"now":"2026-01-01T00:00:00Z","fly":{}}`, forager.ErrSchema, 1, true},
		"no JSON":           {"\x00\x01", forager.ErrSchema, 1, false}, // nobody will ever read it
		"a retired command": {`{"now":"2026-01-01T00:00:00Z","deregister":{"name":"n","instance":"i"},"unheard_of":1}`, nil, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := fsm{log: slog.New(slog.DiscardHandler)}
			o, ok := f.Apply(&raft.Log{Index: 7, Term: 2, Data: []byte(c.data)}).(outcome)
			if !ok || !errors.Is(o.err, c.refused) || f.unknown.Load() != c.unknown || f.behind() != c.behind {
				t.Errorf("outcome %v, unknown %d, behind %v", o.err, f.unknown.Load(), f.behind())
			}
		})
	}
}

// A command of one term changes nothing in another.
func TestCommandOfAnotherTerm(t *testing.T) {
	f := fsm{log: slog.New(slog.DiscardHandler)}
	cmd := acquire(0, "a")
	cmd.Term = 2
	data, err := cmd.encode()
	if err != nil {
		t.Fatal(err)
	}
	if o := f.Apply(&raft.Log{Term: 4, Data: data}).(outcome); !errors.Is(o.err, ErrUnavailable) || f.state.Lease.Epoch != 0 {
		t.Fatalf("got %v, %+v", o.err, f.state.Lease)
	}
	if o := f.Apply(&raft.Log{Term: 2, Data: data}).(outcome); o.err != nil || f.state.Lease.Epoch != 1 {
		t.Fatalf("got %v, %+v", o.err, f.state.Lease)
	}
}

// TestSnapshotOfNewerProgram: the directory is not opened, and left as it is.
func TestSnapshotOfNewerProgram(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	if err := NewClient(local{c}).SetRun(t.Context(), Run{"r", "d"}); err != nil {
		t.Fatal(err)
	}
	if err := c.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	store, err := raft.NewFileSnapshotStore(dir, 1, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	have, err := store.List()
	if err != nil || len(have) != 1 {
		t.Fatalf("%d snapshots, %v", len(have), err)
	}
	_, transport := raft.NewInmemTransport("node-1")
	sink, err := store.Create(1, have[0].Index, have[0].Term, have[0].Configuration, have[0].ConfigurationIndex, transport)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(sink).Encode(map[string]any{"schema": 2, "facts": "new"}); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err = Open(DefaultConfig(), dir, slog.New(slog.DiscardHandler), time.Now)
		if !errors.Is(err, forager.ErrSchema) || !strings.Contains(err.Error(), "schema 2, this program reads 1") {
			t.Fatalf("got %v", err)
		}
	}
	if have, err := store.List(); err != nil || len(have) != 1 {
		t.Fatalf("%d snapshots left, %v", len(have), err)
	}
}

func TestInstanceIsKept(t *testing.T) {
	dir := t.TempDir()
	first, err := openInstance(dir)
	if err != nil || !isName(first) {
		t.Fatalf("got %q, %v", first, err)
	}
	if again, err := openInstance(dir); err != nil || again != first {
		t.Fatalf("got %q, not %q, %v", again, first, err)
	}
	if other, err := openInstance(t.TempDir()); err != nil || other == first {
		t.Fatalf("two directories are %q, %v", other, err)
	}
	if err := os.WriteFile(filepath.Join(dir, instanceFile), []byte("no name\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openInstance(dir); !errors.Is(err, forager.ErrCorrupt) {
		t.Fatalf("got %v", err)
	}
}

func TestPeersMustFit(t *testing.T) {
	peers := []string{"a=h1:7400", "b=h2:7400", "c=h3:7400"}
	for name, c := range map[string]struct {
		change func(*Config)
		want   string // "" for none
	}{
		"a founder":              {func(*Config) {}, ""},
		"its own address":        {func(c *Config) { c.Advertise = "h1:7400" }, ""},
		"another address":        {func(c *Config) { c.Advertise = "h9:7400" }, `cluster.advertise is "h9:7400", and cluster.peers says "h1:7400" of "a"`},
		"not in the list":        {func(c *Config) { c.NodeID = "d" }, `cluster.node_id "d" is not in cluster.peers`},
		"no list":                {func(c *Config) { c.Peers = nil }, `is not in cluster.peers`},
		"joins":                  {func(c *Config) { c.NodeID, c.Join, c.Advertise = "d", true, "h4:7400" }, ""},
		"joins as a founder":     {func(c *Config) { c.Join = true }, "a founder does not join"},
		"joins from nowhere":     {func(c *Config) { c.NodeID, c.Join = "d", true }, "no host that others can dial"},
		"no port":                {func(c *Config) { c.Peers[1] = "b=h2" }, "want host:port"},
		"port 0":                 {func(c *Config) { c.Peers[1] = "b=h2:0" }, "no port that others can dial"},
		"no id":                  {func(c *Config) { c.Peers[1] = "h2:7400" }, "want id=host:port"},
		"an id twice":            {func(c *Config) { c.Peers[1] = "a=h2:7400" }, "an id and an address of its own"},
		"an address twice":       {func(c *Config) { c.Peers[1] = "b=h1:7400" }, "an id and an address of its own"},
		"a bad id":               {func(c *Config) { c.NodeID = "a b" }, "cluster.node_id"},
		"without listen":         {func(c *Config) { c.Listen = "" }, "need cluster.listen"},
		"a bad listen":           {func(c *Config) { c.Listen = "7400" }, "cluster.listen"},
		"leader timeout too low": {func(c *Config) { c.LeaderTimeout = remoteElection }, "cluster.leader_timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.NodeID, cfg.Listen, cfg.Peers = "a", "0.0.0.0:7400", append([]string(nil), peers...)
			c.change(&cfg)
			err := cfg.Validate()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	// Each node founds the same group, in whatever order its list is.
	one, errOne := parsePeers(peers)
	two, errTwo := parsePeers([]string{peers[2], " " + peers[0], peers[1]})
	if errOne != nil || errTwo != nil || fmt.Sprint(one) != fmt.Sprint(two) {
		t.Errorf("%v %v, %v %v", one, errOne, two, errTwo)
	}
}
