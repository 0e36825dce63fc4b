package remote

import (
	"context"
	"fmt"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy"
)

// llamaCpp speaks /completion of llama.cpp's own server: token ids both ways. In
// tokens the stop string and the end-of-sequence token are kept, which the text
// loses. Log-probabilities are not asked for: the server leaves out those of the
// tokens of a stop string and of incomplete characters.
type llamaCpp struct{}

type llamaCppRequest struct {
	Prompt        []int32  `json:"prompt"`
	Predict       int      `json:"n_predict"`
	Temperature   float32  `json:"temperature"`
	TopP          float32  `json:"top_p"`
	TopK          int      `json:"top_k"` // 0 or less: all
	MinP          float32  `json:"min_p"`
	RepeatPenalty float32  `json:"repeat_penalty"`
	Samplers      []string `json:"samplers"`
	Seed          uint32   `json:"seed"`
	Stop          []string `json:"stop,omitempty"`
	ReturnTokens  bool     `json:"return_tokens"`
	CachePrompt   bool     `json:"cache_prompt"`
}

func (llamaCpp) complete(ctx context.Context, e *endpoint, r request) (result, error) {
	q := llamaCppRequest{
		Prompt: r.Context, Predict: r.maxTokens, Temperature: r.Temperature, TopP: allOr(r.TopP), TopK: orNone(r.TopK), RepeatPenalty: 1,
		Samplers: []string{"top_k", "top_p", "temperature"}, Seed: r.seed(), Stop: r.Stop, ReturnTokens: true, CachePrompt: true,
	}
	var a struct {
		Tokens   []int32 `json:"tokens"`
		StopType string  `json:"stop_type"`
	}
	if err := e.post(ctx, "/completion", q, &a); err != nil {
		return result{}, err
	}
	if len(a.Tokens) == 0 {
		return result{}, forager.WithHint(fmt.Errorf("the answer has no tokens: %w", ErrUnsuitable),
			"llama.cpp's server knows return_tokens since December 2024; for others set policy.remote.kind to openai")
	}
	done := result{tokens: a.Tokens}
	switch a.StopType {
	case "word":
		done.stop = policy.StopString
	case "eos":
		done.stop = policy.StopEOS
	case "limit":
		done.stop = policy.StopLength
	default:
		return result{}, fmt.Errorf("stop type %q: %w", a.StopType, errAborted)
	}
	return done, nil
}

func (llamaCpp) load(context.Context, *endpoint, Weights) error   { return fixedWeights(LlamaCpp) }
func (llamaCpp) unload(context.Context, *endpoint, Weights) error { return nil }

func (llamaCpp) top(context.Context, *endpoint, []int32, float32) (float64, error) {
	return 0, fixedWeights(LlamaCpp)
}
