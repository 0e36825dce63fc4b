package replay

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/forager-rl/forager"
)

// Caller carries one request to a Service and brings its answer.
type Caller interface {
	Call(ctx context.Context, request []byte) ([]byte, error)
}

// answerTime is how long a call may take beyond the wait that it asks for.
const answerTime = 15 * time.Second

// Client is a learner's view of a Service. Calls are made one after another;
// each is bounded in time.
type Client struct {
	caller Caller
	epoch  uint64
	wait   time.Duration

	mu       sync.Mutex
	sequence uint64 // of the next sample request; repeated until it is answered
}

// NewClient makes the client of a learner epoch. Sample calls wait up to wait
// for groups.
func NewClient(caller Caller, epoch uint64, wait time.Duration) *Client {
	return &Client{caller: caller, epoch: epoch, wait: wait, sequence: 1}
}

// Begin is Table.Begin.
func (c *Client) Begin(ctx context.Context, from uint64) (Inventory, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, _, err := c.call(ctx, request{Op: opBegin, From: from})
	if err != nil {
		return Inventory{}, err
	}
	c.sequence = 1
	return Inventory{Held: r.Held, Gone: r.Gone.keys()}, nil
}

// Sample borrows groups, joined with their labels; groups and drops may both be
// empty when none came in time. A call whose answer was lost is made good by the
// next one.
func (c *Client) Sample(ctx context.Context, q Query) ([]forager.Group, []Drop, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, loan, err := c.call(ctx, request{Op: opSample, Sequence: c.sequence, Query: q, Wait: c.wait})
	if err != nil {
		return nil, nil, err
	}
	groups, err := loan.Groups()
	if err != nil {
		return nil, nil, err
	}
	c.sequence++
	return groups, loan.Drops, nil
}

// Commit is Table.Commit. used gives, by group, the annotations that its
// rollouts were learned from with: the archive gets these. Groups that it does
// not name are archived with the labels that the table has by now. An error may
// come when some groups are committed; the call is then repeated.
func (c *Client) Commit(ctx context.Context, keys []uint64, used map[uint64][]forager.Annotation) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	parts, err := commitParts(keys, used)
	if err != nil {
		return err
	}
	for _, part := range parts {
		if _, _, err := c.call(ctx, request{Op: opCommit, Keys: part.keys, Used: part.used}); err != nil {
			return err
		}
	}
	return nil
}

// Stats describes the service's table. Any epoch may ask.
func (c *Client) Stats(ctx context.Context) (Stats, error) {
	r, _, err := c.call(ctx, request{Op: opStats})
	if err != nil {
		return Stats{}, err
	}
	if r.Stats == nil {
		return Stats{}, fmt.Errorf("replay stats: %w: empty answer", forager.ErrCorrupt)
	}
	return *r.Stats, nil
}

func (c *Client) call(ctx context.Context, r request) (response, Loan, error) {
	r.Epoch = c.epoch
	data, err := json.Marshal(r)
	if err != nil {
		return response{}, Loan{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.Wait+answerTime)
	defer cancel()
	answer, err := c.caller.Call(ctx, data)
	if err != nil {
		return response{}, Loan{}, fmt.Errorf("replay %s: %w", r.Op, err)
	}
	got, loan, err := decodeResponse(answer)
	if err == nil {
		err = got.err()
	}
	if err != nil {
		return response{}, Loan{}, fmt.Errorf("replay %s: %w", r.Op, err)
	}
	return got, loan, nil
}
