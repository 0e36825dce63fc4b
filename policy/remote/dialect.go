package remote

import (
	"context"

	"github.com/forager-rl/forager/policy"
)

// request is one completion, ready to be sent.
type request struct {
	policy.Request
	maxTokens int      // within the server's context length
	weights   *Weights // nil means what the server was started with
	train     bool
}

// result is what a server answered. tag names the weights behind the tokens
// where the server tells.
type result struct {
	tokens   []int32
	logprobs []float32 // nil when the server does not give them
	stop     policy.StopReason
	tag      string
}

// dialect is how a kind of server is spoken to.
type dialect interface {
	complete(ctx context.Context, e *endpoint, r request) (result, error)
	// load makes weights available, or does nothing when they are.
	load(ctx context.Context, e *endpoint, w Weights) error
	unload(ctx context.Context, e *endpoint, w Weights) error
	// top gives the log-probability of the likeliest next token, as the server
	// tells it for a temperature.
	top(ctx context.Context, e *endpoint, context []int32, temperature float32) (float64, error)
}

// seed derives the seed of one completion: turns of an episode share theirs.
// The result fits every server's integer.
func (r request) seed() uint32 {
	z := r.Seed + uint64(len(r.Context))*0x9e3779b97f4a7c15
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	return uint32(z>>32) >> 1
}

// allOr gives the value that means "no restriction" when top-p is 0.
func allOr(topP float32) float32 {
	if topP == 0 {
		return 1
	}
	return topP
}

// orNone gives the value that means "no restriction" when top-k is 0.
func orNone(topK int) int {
	if topK == 0 {
		return -1
	}
	return topK
}
