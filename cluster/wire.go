package cluster

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/forager-rl/forager"
)

// request is what a Client sends: a command, or a read when Command is nil.
type request struct {
	Command *Command `json:"command,omitempty"`
	Read    string   `json:"read,omitempty"` // readState
}

// readState is the read that answers with the whole state.
const readState = "state"

// response is the answer. State is set after a successful read.
type response struct {
	Result Result     `json:"result,omitzero"`
	State  *State     `json:"state,omitempty"`
	Error  *wireError `json:"error,omitempty"`
}

// Handle answers one request of a Client, whatever transport brought it. Errors
// of the request travel inside the answer; the returned error means that there
// is no answer. It waits as long as Apply does.
func (c *Cluster) Handle(ctx context.Context, data []byte) ([]byte, error) {
	answer, err := c.answer(ctx, data)
	answer.Error = toWire(err)
	out, err := json.Marshal(answer)
	if err != nil {
		return nil, fmt.Errorf("encode cluster answer: %w", err)
	}
	return out, nil
}

func (c *Cluster) answer(ctx context.Context, data []byte) (response, error) {
	if len(data) > maxCommandBytes {
		return response{}, fmt.Errorf("cluster request has %d bytes: at most %d are allowed", len(data), maxCommandBytes)
	}
	var r request
	if err := decodeStrict(data, &r); err != nil {
		return response{}, fmt.Errorf("decode cluster request: %w: %w", forager.ErrSchema, err)
	}
	switch {
	case r.Command != nil && r.Read == "":
		result, err := c.Apply(ctx, *r.Command)
		return response{Result: result}, err
	case r.Command == nil && r.Read == readState:
		state, err := c.State(ctx)
		if err != nil {
			return response{}, err
		}
		return response{State: &state}, nil
	default:
		return response{}, fmt.Errorf("cluster request: neither one command nor a known read: %w", forager.ErrSchema)
	}
}
