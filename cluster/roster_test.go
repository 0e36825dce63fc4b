package cluster

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/forager-rl/forager"
)

// board is a Board in memory that forgets as the bus does. Its clock is that of
// the test's bubble.
type board struct {
	mu    sync.Mutex
	words map[string][]byte
	said  map[string]time.Time
	count int // of announcements
	err   error
}

func newBoard() *board { return &board{words: map[string][]byte{}, said: map[string]time.Time{}} }

func (b *board) Announce(_ context.Context, name string, data []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return b.err
	}
	b.words[name], b.said[name] = data, time.Now()
	b.count++
	return nil
}

func (b *board) Withdraw(_ context.Context, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.words, name)
	return b.err
}

func (b *board) Announced(context.Context) (map[string][]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.words, func(name string, _ []byte) bool { return time.Since(b.said[name]) > MemberAge })
	return maps.Clone(b.words), b.err
}

func (b *board) announcements() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count
}

func (b *board) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

// joined runs the roster of a process until the returned function is called.
func joined(t *testing.T, on Board, self Member) (*Roster, func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := NewRoster(on, self, slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	synctest.Wait()
	return r, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func names(t *testing.T, r *Roster) []string {
	t.Helper()
	members, err := r.Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, m := range members {
		list = append(list, m.Name)
	}
	return list
}

func TestRoster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		on := newBoard()
		a, leaveA := joined(t, on, Member{Name: "host.a-1", Roles: []forager.Role{forager.RoleActor}, Started: at(1)})
		b, leaveB := joined(t, on, Member{Name: "host.b-1", Roles: []forager.Role{forager.RoleCluster, forager.RoleReplay}, Started: at(2)})
		if got := names(t, a); !slices.Equal(got, []string{"host.b-1", "host.a-1"}) { // roles in order, then names
			t.Fatalf("members %v", got)
		}

		// A fact is announced at once, and is asked again at each heartbeat.
		var playing atomic.Uint64
		playing.Store(3)
		before := on.announcements()
		a.Tell(func(m *Member) {
			v := forager.Version(playing.Load())
			m.Policy = &v
		})
		a.Tell(func(m *Member) { m.Credits = 7 })
		synctest.Wait()
		if on.announcements() == before {
			t.Error("a new fact waits for the next heartbeat")
		}
		playing.Store(4)
		time.Sleep(Heartbeat + time.Millisecond)
		members, err := b.Members(t.Context())
		if err != nil || *members[1].Policy != 4 || members[1].Credits != 7 {
			t.Errorf("members %+v, %v", members, err)
		}

		// Whoever ends in order is gone at once.
		leaveB()
		if got := names(t, a); !slices.Equal(got, []string{"host.a-1"}) {
			t.Errorf("after an orderly end: %v", got)
		}

		// The board may be away: the roster says so, and goes on afterwards.
		on.fail(errors.New("away"))
		time.Sleep(time.Minute)
		if _, err := a.Members(t.Context()); err == nil {
			t.Error("a board that is away lists members")
		}
		on.fail(nil)
		if got := names(t, a); got != nil {
			t.Errorf("after a minute of silence: %v", got)
		}
		time.Sleep(Heartbeat + time.Millisecond)
		if got := names(t, a); !slices.Equal(got, []string{"host.a-1"}) {
			t.Errorf("after the board has come back: %v", got)
		}
		leaveA()
	})
}

// TestRosterForgetsTheDead: a process that was killed is listed for MemberAge.
func TestRosterForgetsTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		on := newBoard()
		dead := NewRoster(on, Member{Name: "dead", Started: at(5)}, slog.New(slog.DiscardHandler))
		dead.Tell(func(m *Member) { m.Addresses["retriever"] = "http://dead" })
		if err := dead.announce(t.Context()); err != nil {
			t.Fatal(err)
		}
		alive, leave := joined(t, on, Member{Name: "alive", Started: at(3)})
		defer leave()
		alive.Tell(func(m *Member) { m.Addresses["retriever"] = "http://alive" })
		synctest.Wait()
		if got, err := alive.Lookup(t.Context(), "retriever"); err != nil || !slices.Equal(got, []string{"http://dead", "http://alive"}) {
			t.Errorf("newest first: %v, %v", got, err)
		}
		time.Sleep(MemberAge + time.Second)
		if got, err := alive.Lookup(t.Context(), "retriever"); err != nil || !slices.Equal(got, []string{"http://alive"}) {
			t.Errorf("after its time: %v, %v", got, err)
		}
		if _, err := alive.Lookup(t.Context(), "oracle"); !errors.Is(err, forager.ErrNotFound) {
			t.Errorf("a service of nobody: %v", err)
		}
	})
}

// TestRosterReadsOthers: words of other versions are read, other bytes left out.
func TestRosterReadsOthers(t *testing.T) {
	on := newBoard()
	on.words["new"], on.said["new"] = []byte(`{"name":"new","roles":["actor","oracle"],"version":"v9","mood":"fine"}`), time.Now()
	on.words["bad"], on.said["bad"] = []byte(`nonsense`), time.Now()
	r := NewRoster(on, Member{}, slog.New(slog.DiscardHandler))
	members, err := r.Members(t.Context())
	if err != nil || len(members) != 1 || members[0].Version != "v9" || !members[0].Plays("oracle") {
		t.Errorf("members %+v, %v", members, err)
	}
}
