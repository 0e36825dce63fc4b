package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/forager-rl/forager"
)

// request is what a Client sends: one of a command, a change of the group, and a
// read.
type request struct {
	Command *Command `json:"command,omitempty"`
	Change  *change  `json:"change,omitempty"`
	Read    string   `json:"read,omitempty"`
	// Forwarded marks a request that another node has passed on: it goes no further.
	Forwarded bool `json:"forwarded,omitempty"`
}

// What can be read.
const (
	readState   = "state"   // of the whole group, from its leader
	readServers = "servers" // the nodes of the group, from its leader
	readStatus  = "status"  // of the node that answers
)

// response is the answer; what was read is set after a successful read.
type response struct {
	Result  Result     `json:"result,omitzero"`
	State   *State     `json:"state,omitempty"`
	Servers []Server   `json:"servers,omitempty"`
	Status  *Status    `json:"status,omitempty"`
	Error   *wireError `json:"error,omitempty"`
}

// forwardWait bounds the wait for the answer of the leader. A healthy one takes
// milliseconds; one that hangs has a successor by then.
const forwardWait = 2 * time.Second

// Handle answers one request of a Client, whatever transport brought it. A node
// that does not lead has the leader answer, through Config.Forward. Errors of the
// request travel inside the answer; the returned error means that there is no
// answer. It waits as long as Apply does.
func (c *Cluster) Handle(ctx context.Context, data []byte) ([]byte, error) {
	r, err := decodeRequest(data)
	var answer response
	if err == nil {
		answer, err = c.answer(ctx, r)
	}
	if errors.Is(err, ErrNotLeader) && !r.Forwarded && c.cfg.Forward != nil {
		passed, forwardErr := c.forward(ctx, r)
		if forwardErr == nil {
			return passed, nil
		}
		err = forwardErr
	}
	answer.Error = toWire(err)
	out, err := json.Marshal(answer)
	if err != nil {
		return nil, fmt.Errorf("encode cluster answer: %w", err)
	}
	return out, nil
}

func decodeRequest(data []byte) (request, error) {
	if len(data) > maxCommandBytes {
		return request{}, fmt.Errorf("cluster request has %d bytes: at most %d are allowed", len(data), maxCommandBytes)
	}
	var r request
	if err := decodeStrict(data, &r); err != nil {
		return request{}, fmt.Errorf("decode cluster request: %w: %w", forager.ErrSchema, err)
	}
	parts := 0
	for _, set := range []bool{r.Command != nil, r.Change != nil, r.Read != ""} {
		if set {
			parts++
		}
	}
	if parts != 1 || r.Command != nil && r.Command.RebaseLease != nil {
		return request{}, fmt.Errorf("cluster request: not one command, change or read: %w", forager.ErrSchema)
	}
	return r, nil
}

func (c *Cluster) answer(ctx context.Context, r request) (response, error) {
	switch {
	case r.Command != nil:
		result, err := c.Apply(ctx, *r.Command)
		return response{Result: result}, err
	case r.Change != nil:
		return response{}, c.change(ctx, *r.Change)
	case r.Read == readState:
		state, err := c.State(ctx)
		if err != nil {
			return response{}, err
		}
		return response{State: &state}, nil
	case r.Read == readServers:
		if err := c.lead(ctx); err != nil {
			return response{}, err
		}
		return response{Servers: c.servers()}, nil
	case r.Read == readStatus:
		status := c.Status()
		return response{Status: &status}, nil
	default:
		return response{}, fmt.Errorf("cluster request: read of %q: %w", r.Read, forager.ErrSchema)
	}
}

// forward has the leader answer a request. It answers ErrUnavailable when none is
// known or it gives no answer.
func (c *Cluster) forward(ctx context.Context, r request) ([]byte, error) {
	const wait = "forward a request to the raft leader"
	leader := c.Status().Leader
	if leader == "" || leader == c.cfg.NodeID {
		return nil, unavailable(wait, errors.New("the lead is changing"))
	}
	r.Forwarded = true
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode cluster request: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, forwardWait)
	defer cancel()
	answer, err := c.cfg.Forward(ctx, leader, data)
	if err != nil {
		return nil, unavailable(fmt.Sprintf("%s %q", wait, leader), err)
	}
	return answer, nil
}
