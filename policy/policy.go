// Package policy says what a language-model policy can do: continue token
// sequences and tell the log-probability of every token it sampled. Token in,
// token out; text is made only at the edges.
//
// Package policy/lm is the native engine. The actor, evaluation and remote
// engines meet at the interfaces here. It imports the root package only.
package policy

import (
	"context"

	"github.com/forager-rl/forager"
)

// Request asks to continue one token sequence.
type Request struct {
	// Session names the sequence. Requests of one session extend one another,
	// so that an engine can keep their KV cache between turns. Sessions are
	// chosen by the caller, unique while in use, and ended by Release.
	Session uint64
	// Context is every token so far: prompt, earlier actions, observations.
	Context []int32
	// MaxTokens bounds the number of new tokens, at least 1.
	MaxTokens int
	// MinTokens is the number of new tokens before which the completion does
	// not end: tokens that would end it are not sampled, and stop strings that
	// end earlier do not count. From 0 to MaxTokens.
	MinTokens int
	// Stop ends the completion after any of these strings appears in the text
	// of the new tokens. The stop string is kept.
	Stop []string
	// StopTokens end the completion as the vocabulary's end-of-sequence token
	// does.
	StopTokens []int32
	// Temperature divides the logits; 0 means greedy.
	Temperature float32
	// TopK and TopP restrict sampling; 0 and 0 (or 1) mean no restriction.
	TopK int
	TopP float32
	// Seed fixes the random draws: draw i of a completion depends on Seed and
	// on the token's position in the sequence, not on other sequences.
	Seed uint64
}

// StopReason says why a completion ended.
type StopReason string

// The reasons to end a completion.
const (
	StopString StopReason = "stop"   // a stop string appeared
	StopEOS    StopReason = "eos"    // the end-of-sequence token or a stop token was sampled; it is kept
	StopLength StopReason = "length" // MaxTokens, or the engine's context length
)

// Completion is the continuation of one sequence.
type Completion struct {
	Tokens []int32
	// Logprobs are natural logs, as sampled: after Temperature, before TopK, TopP
	// and MinTokens, which restrict the choice only.
	Logprobs []float32
	// Versions covers Tokens in order; positions count from the first new
	// token. More than one span means that weights were swapped on the way.
	Versions []forager.VersionSpan
	Stop     StopReason
}

// Generator continues token sequences. Implementations batch concurrent calls.
type Generator interface {
	// Generate blocks until the completion ended or ctx is done.
	Generate(ctx context.Context, req Request) (Completion, error)
	// Release drops what is kept for a session. Unknown sessions are ignored.
	Release(session uint64)
}

// Tokenizer turns text into token ids and back. Decode(Encode(s)) == s for
// every string; the opposite does not hold and is never relied on.
type Tokenizer interface {
	Encode(text string) []int32
	// EncodePlain is Encode for untrusted text: tokens of the protocol, such as
	// tags, are spelled out instead of being recognised.
	EncodePlain(text string) []int32
	Decode(ids []int32) string
	// VocabSize is one more than the largest id.
	VocabSize() int
	// EOS is the end-of-sequence token.
	EOS() int32
}
