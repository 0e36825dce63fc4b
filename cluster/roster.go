package cluster

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/forager-rl/forager"
)

// Heartbeat is the time between two signs of life of a process. Whoever has
// given none for MemberAge is gone.
const (
	Heartbeat = 2 * time.Second
	MemberAge = 15 * time.Second
)

// withdrawWait bounds the good-bye of a process that ends in order. One that
// cannot be said costs the others the wait for MemberAge.
const withdrawWait = 2 * time.Second

// Board is where processes announce themselves. Package bus has one.
type Board interface {
	// Announce replaces what was said under a name before.
	Announce(ctx context.Context, name string, data []byte) error
	// Withdraw takes it back; nothing to take back is no error.
	Withdraw(ctx context.Context, name string) error
	// Announced gives the last word under each name that is not older than
	// MemberAge, by the clock of the board.
	Announced(ctx context.Context) (map[string][]byte, error)
}

// Roster says who is there: it announces this process, if it is to be announced,
// and lists those who have given a sign of life. It needs no Raft group, so that
// it works when there is none.
type Roster struct {
	board Board
	log   *slog.Logger
	self  Member
	kick  chan struct{}

	mu    sync.Mutex
	facts []func(*Member)
}

// NewRoster makes the roster of a process. What of it changes is told with Tell;
// somebody who only looks gives an empty Member and never calls Run.
func NewRoster(board Board, self Member, log *slog.Logger) *Roster {
	return &Roster{board: board, log: log, self: self, kick: make(chan struct{}, 1)}
}

// Tell adds a fact about this process, which fills in its part of a Member at
// each heartbeat from now on, and has it announced at once. Facts are called one
// after another, in the order in which they were told.
func (r *Roster) Tell(fact func(*Member)) {
	r.mu.Lock()
	r.facts = append(r.facts, fact)
	r.mu.Unlock()
	select {
	case r.kick <- struct{}{}:
	default: // it is about to be announced anyway
	}
}

// Run announces this process at every Heartbeat until ctx is done, then takes it
// back and returns nil. While the board is away it goes on trying.
func (r *Roster) Run(ctx context.Context) error {
	tick := time.NewTicker(Heartbeat)
	defer tick.Stop()
	for lost := false; ; {
		switch err := r.announce(ctx); {
		case err != nil && ctx.Err() == nil && !lost:
			lost = true
			r.log.Warn("this process could not be announced, which is tried again", "error", err)
		case err == nil && lost:
			lost = false
			r.log.Info("this process is announced again")
		}
		select {
		case <-ctx.Done():
			r.withdraw(ctx)
			return nil
		case <-tick.C:
		case <-r.kick:
		}
	}
}

func (r *Roster) announce(ctx context.Context) error {
	m := r.describe()
	data, err := m.encode()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, MemberAge/3)
	defer cancel()
	return r.board.Announce(ctx, boardName(m.Name), data)
}

func (r *Roster) withdraw(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawWait)
	defer cancel()
	if err := r.board.Withdraw(ctx, boardName(r.self.Name)); err != nil {
		r.log.Debug("the good-bye of this process was not heard, and others will notice its silence", "error", err)
	}
}

// describe is this process at this moment.
func (r *Roster) describe() Member {
	r.mu.Lock()
	facts := slices.Clone(r.facts)
	r.mu.Unlock()
	m := r.self
	m.Addresses = map[string]string{}
	for _, fact := range facts {
		fact(&m)
	}
	return m
}

// Members lists the processes that are there, by role in the order in which a
// cluster is started, then by name. A word that cannot be read is left out.
func (r *Roster) Members(ctx context.Context) ([]Member, error) {
	words, err := r.board.Announced(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the processes of the run: %w", err)
	}
	var members []Member
	for name, word := range words {
		m, err := decodeMember(word)
		if err != nil {
			r.log.Debug("the word of a process cannot be read", "name", name, "error", err)
			continue
		}
		members = append(members, m)
	}
	slices.SortFunc(members, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), strings.Compare(a.Name, b.Name))
	})
	return members, nil
}

// rank is the place of a member's first role.
func (m *Member) rank() int {
	for i, role := range forager.Roles() {
		if m.Plays(role) {
			return i
		}
	}
	return len(forager.Roles())
}

// Lookup gives the URLs at which a service is reached, at least one, that of the
// process that was started last first, or forager.ErrNotFound. The caller picks one and
// moves on to another when it does not answer: a process that was killed is
// listed for MemberAge.
func (r *Roster) Lookup(ctx context.Context, service string) ([]string, error) {
	members, err := r.Members(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(members, func(a, b Member) int { return b.Started.Compare(a.Started) })
	var urls []string
	for _, m := range members {
		if url := m.Addresses[service]; url != "" && !slices.Contains(urls, url) {
			urls = append(urls, url)
		}
	}
	if len(urls) == 0 {
		return nil, fmt.Errorf("service %q: %w: nobody announces it", service, forager.ErrNotFound)
	}
	return urls, nil
}

// boardName is a name as boards take it: letters, digits, "-" and "_".
func boardName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return '-'
	}, name)
}
