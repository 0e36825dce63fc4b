package node

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/cluster"
)

// What roles wait for, in words that people read.
const (
	waitStart     = "its start"
	waitCluster   = "the Raft group"
	waitRetriever = "a retriever"
	waitWeights   = "the first weights"
	waitCredits   = "credits"
	waitLease     = "the lease, which another learner holds"
	waitJudge     = "a judge that answers"
)

// condition is how the roles of a process are: which of them are up, and what
// they wait for.
type condition struct {
	clock func() time.Time

	mu    sync.Mutex
	roles []forager.Role
	up    map[forager.Role]bool
	waits []*wait // oldest first
}

// wait is something that a role waits for, from some time on.
type wait struct {
	role  forager.Role
	what  string
	since time.Time
}

func newCondition(clock func() time.Time) *condition {
	return &condition{clock: clock, up: map[forager.Role]bool{}}
}

// expect says that the process is to play a role.
func (c *condition) expect(roles ...forager.Role) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, role := range roles {
		if !slices.Contains(c.roles, role) {
			c.roles = append(c.roles, role)
		}
	}
}

// expected lists the roles that the process is to play.
func (c *condition) expected() []forager.Role {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.roles)
}

// rise says that a role can be used.
func (c *condition) rise(role forager.Role) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.up[role] = true
}

// wait notes what a role waits for until the returned function is called.
func (c *condition) wait(role forager.Role, what string) (over func()) {
	w := &wait{role, what, c.clock()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waits = append(c.waits, w)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.waits = slices.DeleteFunc(c.waits, func(other *wait) bool { return other == w })
	}
}

// ready reports the first role that is not up, with what it waits for, or nil.
func (c *condition) ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, role := range c.roles {
		if c.up[role] {
			continue
		}
		what := waitStart
		for _, w := range c.waits {
			if w.role == role {
				what = w.what // the newest says most
			}
		}
		return fmt.Errorf("%s waits for %s", role, what)
	}
	return nil
}

// tell fills in a Member's roles and waits.
func (c *condition) tell(m *cluster.Member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.Roles = slices.Clone(c.roles)
	now := c.clock()
	for _, w := range c.waits {
		m.Waits = append(m.Waits, cluster.Wait{Role: w.role, What: w.what, Seconds: now.Sub(w.since).Seconds()})
	}
}
