package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// group is several nodes in memory inside a synctest bubble, so that elections
// take virtual time. Their stores outlive them, as files do. Clients reach every
// node that is up; only Raft's network is cut.
type group struct {
	t       *testing.T
	members []*member

	mu  sync.Mutex
	cut map[[2]int]bool // Raft's network
}

type member struct {
	cfg       Config
	disk      *testDisk
	snapshots raft.SnapshotStore
	clock     time.Duration // ahead of the time of the bubble

	transport *raft.InmemTransport
	node      *Cluster // nil while it is down
	stop      func() error
}

// testDisk is a store that can be slow and full.
type testDisk struct {
	*raft.InmemStore
	delay atomic.Int64 // of each write
	full  atomic.Bool
}

func (d *testDisk) write(do func() error) error {
	time.Sleep(time.Duration(d.delay.Load()))
	if d.full.Load() {
		return syscall.ENOSPC
	}
	return do()
}

func (d *testDisk) StoreLogs(logs []*raft.Log) error {
	return d.write(func() error { return d.InmemStore.StoreLogs(logs) })
}
func (d *testDisk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }
func (d *testDisk) SetUint64(key []byte, v uint64) error {
	return d.write(func() error { return d.InmemStore.SetUint64(key, v) })
}

// DeleteRange of an empty log from entry 0 would leave InmemStore with a last
// index below 0.
func (d *testDisk) DeleteRange(low, high uint64) error {
	return d.write(func() error { return d.InmemStore.DeleteRange(max(low, 1), high) })
}

func (d *testDisk) Set(key, v []byte) error {
	return d.write(func() error { return d.InmemStore.Set(key, v) })
}

func nodeName(i int) string { return fmt.Sprint("node-", i) }

// newGroup starts n founders. It is closed at the end of the bubble.
func newGroup(t *testing.T, n int, change func(i int, m *member)) *group {
	t.Helper()
	g := &group{t: t, cut: map[[2]int]bool{}}
	for i := range n {
		g.add(i, change)
		if n > 1 {
			g.members[i].cfg.Listen = nodeName(i) + ":1"
		}
	}
	for i := range n {
		g.boot(i)
	}
	t.Cleanup(func() {
		for i := range g.members {
			_ = g.crash(i) // what its Run ended with
		}
	})
	return g
}

func (g *group) add(i int, change func(i int, m *member)) {
	m := &member{cfg: DefaultConfig(), disk: &testDisk{InmemStore: raft.NewInmemStore()}, snapshots: raft.NewInmemSnapshotStore()}
	m.cfg.NodeID = nodeName(i)
	m.cfg.LeaderTimeout, m.cfg.ApplyTimeout = 2*time.Second, 2*time.Second
	m.cfg.Forward = g.forward
	if change != nil {
		change(i, m)
	}
	g.members = append(g.members, m)
}

// boot starts a node on its stores.
func (g *group) boot(i int) {
	g.t.Helper()
	m := g.members[i]
	_, transport := raft.NewInmemTransportWithTimeout(raft.ServerAddress(nodeName(i)+":1"), 100*time.Millisecond)
	n := node{logs: m.disk, stable: m.disk, snapshots: m.snapshots, transport: transport, release: func() error { return nil }}
	if !m.cfg.Join {
		for j, other := range g.members {
			if !other.cfg.Join {
				n.voters = append(n.voters, raft.Server{ID: raft.ServerID(nodeName(j)), Address: raft.ServerAddress(nodeName(j) + ":1")})
			}
		}
	}
	c, err := start(m.cfg, n, slog.New(slog.DiscardHandler), func() time.Time { return time.Now().Add(m.clock) })
	if err != nil {
		g.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	g.mu.Lock()
	m.transport, m.node = transport, c
	m.stop = func() error { cancel(); return <-done }
	g.mu.Unlock()
	g.connect()
}

// crash ends a node as kill -9 would, and gives what its Run ended with.
func (g *group) crash(i int) error {
	g.mu.Lock()
	m := g.members[i]
	c, stop := m.node, m.stop
	m.node = nil
	g.mu.Unlock()
	if c == nil {
		return nil
	}
	g.connect()
	err := stop()
	if halt := c.halt(); halt != nil {
		g.t.Error(halt)
	}
	return err
}

// connect makes Raft's network what it should be.
func (g *group) connect() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, a := range g.members {
		for j, b := range g.members {
			switch {
			case i == j || a.transport == nil || b.transport == nil:
			case a.node == nil || b.node == nil || g.cut[[2]int{i, j}]:
				a.transport.Disconnect(b.transport.LocalAddr())
			default:
				a.transport.Connect(b.transport.LocalAddr(), b.transport)
			}
		}
	}
}

// split cuts the network between some nodes and all others.
func (g *group) split(some ...int) {
	g.mu.Lock()
	for i := range g.members {
		for j := range g.members {
			if slices.Contains(some, i) != slices.Contains(some, j) {
				g.cut[[2]int{i, j}] = true
			}
		}
	}
	g.mu.Unlock()
	g.connect()
}

func (g *group) isolate(i int) { g.split(i) }

func (g *group) heal() {
	g.mu.Lock()
	clear(g.cut)
	g.mu.Unlock()
	g.connect()
}

// up gives a node, nil while it is down.
func (g *group) up(i int) *Cluster {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.members[i].node
}

var errDown = errors.New("nobody answers")

func (g *group) forward(ctx context.Context, node string, request []byte) ([]byte, error) {
	for i := range g.members {
		if c := g.up(i); c != nil && nodeName(i) == node {
			return c.Handle(ctx, request)
		}
	}
	return nil, errDown
}

// only is a client of one node.
func (g *group) only(i int) *Client { return NewClient(local{g.members[i].node}) }

// client is one that each time asks some node that is up.
func (g *group) client(seed uint64) *Client {
	return NewClient(&queue{g: g, random: rand.New(rand.NewPCG(seed, 2))})
}

type queue struct {
	g      *group
	random *rand.Rand
}

func (q *queue) Call(ctx context.Context, request []byte) ([]byte, error) {
	n := len(q.g.members)
	from := q.random.IntN(n)
	for i := range n {
		if c := q.g.up((from + i) % n); c != nil {
			return c.Handle(ctx, request)
		}
	}
	return nil, unavailable("call", errDown)
}

// local is a Caller of a node in this process.
type local struct{ node *Cluster }

func (l local) Call(ctx context.Context, request []byte) ([]byte, error) {
	return l.node.Handle(ctx, request)
}

// leader waits, bounded, for a leader among all nodes but one (-1: none).
func (g *group) leader(except int) int {
	g.t.Helper()
	for range 10000 {
		for i := range g.members {
			if c := g.up(i); i != except && c != nil && c.leads() {
				return i
			}
		}
		time.Sleep(time.Millisecond) // virtual
	}
	g.t.Fatal("no leader within 10 s")
	return -1
}

// agree waits until all replicas have one digest. The library backs off from a
// peer that was away by up to 41 s, so the bound is a minute (virtual).
func (g *group) agree() {
	g.t.Helper()
	var digests []string
	for range 60 {
		digests = digests[:0]
		for i := range g.members {
			s := g.up(i).fsm.read()
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
