package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy"
)

// vllm speaks /v1/completions with vLLM's extensions: token ids both ways, stop
// strings kept, the prefix cache separated by version. New weights are LoRA
// adapters with a name for each version, so that the model's name in a request
// says for certain which weights sample its tokens.
//
// Sampling settings are all spelled out: what is left out is taken from the
// model's generation_config.json.
type vllm struct{}

type vllmRequest struct {
	Model             string   `json:"model"`
	Prompt            []int32  `json:"prompt"`
	MaxTokens         int      `json:"max_tokens"`
	Temperature       float32  `json:"temperature"`
	TopP              float32  `json:"top_p"`
	TopK              int      `json:"top_k"`
	MinP              float32  `json:"min_p"`
	RepetitionPenalty float32  `json:"repetition_penalty"`
	Seed              uint32   `json:"seed"`
	Stop              []string `json:"stop,omitempty"`
	StopTokens        []int32  `json:"stop_token_ids,omitempty"`
	IncludeStop       bool     `json:"include_stop_str_in_output"`
	MinTokens         int      `json:"min_tokens,omitempty"`
	SkipSpecial       bool     `json:"skip_special_tokens"`
	Logprobs          *int     `json:"logprobs,omitempty"`
	ReturnTokenIDs    bool     `json:"return_token_ids"`
	CacheSalt         string   `json:"cache_salt,omitempty"`
}

type vllmAnswer struct {
	Model   string `json:"model"`
	Choices []struct {
		FinishReason   string          `json:"finish_reason"`
		StopReason     json.RawMessage `json:"stop_reason"` // null at the end of a sequence, a stop string, a token id
		TokenIDs       []int32         `json:"token_ids"`
		PromptTokenIDs []int32         `json:"prompt_token_ids"`
		Logprobs       *struct {
			TokenLogprobs []*float32           `json:"token_logprobs"`
			TopLogprobs   []map[string]float64 `json:"top_logprobs"`
		} `json:"logprobs"`
	} `json:"choices"`
}

func (vllm) request(e *endpoint, r request) vllmRequest {
	one := 1 // the sampled token's own
	q := vllmRequest{
		Model: e.model, Prompt: r.Context, MaxTokens: r.maxTokens, Temperature: r.Temperature, TopP: allOr(r.TopP), TopK: orNone(r.TopK),
		RepetitionPenalty: 1, Seed: r.seed(), Stop: r.Stop, StopTokens: r.StopTokens,
		IncludeStop: true, MinTokens: r.MinTokens, Logprobs: &one, ReturnTokenIDs: true,
	}
	if r.weights != nil {
		q.Model, q.CacheSalt = r.weights.tag(), r.weights.tag()
	}
	return q
}

func (d vllm) complete(ctx context.Context, e *endpoint, r request) (result, error) {
	q := d.request(e, r)
	var a vllmAnswer
	err := e.post(ctx, "/v1/completions", q, &a)
	if r.weights != nil && rejected(err, http.StatusNotFound) {
		return result{}, fmt.Errorf("%w: %w", errNotLoaded, err)
	}
	if err != nil {
		return result{}, err
	}
	if len(a.Choices) == 0 {
		return result{}, errors.New("/v1/completions: the answer has no choice")
	}
	c := a.Choices[0]
	if c.TokenIDs == nil {
		return result{}, forager.WithHint(fmt.Errorf("the answer has no token_ids: %w", ErrUnsuitable),
			"vLLM gives them from 0.10.2 on; a router or proxy between must let return_token_ids through")
	}
	if c.PromptTokenIDs != nil && !slices.Equal(c.PromptTokenIDs, r.Context) {
		return result{}, fmt.Errorf("the server read %d prompt tokens, other than the %d that were sent: %w", len(c.PromptTokenIDs), len(r.Context), ErrUnsuitable)
	}
	done := result{tokens: c.TokenIDs, tag: a.Model}
	if r.train && c.Logprobs == nil {
		return result{}, forager.WithHint(fmt.Errorf("the answer has no logprobs: %w", ErrUnsuitable), "start vLLM with --max-logprobs of at least 1")
	}
	if c.Logprobs != nil {
		done.logprobs = make([]float32, len(c.Logprobs.TokenLogprobs))
		for i, p := range c.Logprobs.TokenLogprobs {
			if done.logprobs[i] = float32(math.NaN()); p != nil {
				done.logprobs[i] = *p
			}
		}
	}
	switch reason := string(c.StopReason); {
	case c.FinishReason == "length":
		done.stop = policy.StopLength
	case c.FinishReason == "stop" && strings.HasPrefix(reason, `"`):
		done.stop = policy.StopString
	case c.FinishReason == "stop":
		done.stop = policy.StopEOS
	default:
		return result{}, fmt.Errorf("finish reason %q: %w", c.FinishReason, errAborted)
	}
	return done, nil
}

func (d vllm) top(ctx context.Context, e *endpoint, context []int32, temperature float32) (float64, error) {
	var a vllmAnswer
	q := d.request(e, request{Request: policy.Request{Context: context, Temperature: temperature}, maxTokens: 1})
	if err := e.post(ctx, "/v1/completions", q, &a); err != nil {
		return 0, err
	}
	if len(a.Choices) == 0 || a.Choices[0].Logprobs == nil || len(a.Choices[0].Logprobs.TopLogprobs) == 0 {
		return 0, fmt.Errorf("/v1/completions: the answer has no top_logprobs: %w", ErrUnsuitable)
	}
	best := math.Inf(-1)
	for _, p := range a.Choices[0].Logprobs.TopLogprobs[0] {
		best = max(best, p)
	}
	return best, nil
}

const loraHint = "start vLLM with --enable-lora, --max-lora-rank of at least trainer.lora.rank, and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"

// load adds the version's adapter. Another actor may have done so already.
func (vllm) load(ctx context.Context, e *endpoint, w Weights) error {
	err := e.post(ctx, "/v1/load_lora_adapter", map[string]string{"lora_name": w.tag(), "lora_path": w.Path}, nil)
	switch {
	case err == nil, rejected(err, http.StatusBadRequest) && strings.Contains(err.Error(), "already been loaded"):
		return nil
	case rejected(err, http.StatusBadRequest), rejected(err, http.StatusNotFound):
		return forager.WithHint(err, loraHint+"; it must be able to read "+w.Path)
	}
	return err
}

func (vllm) unload(ctx context.Context, e *endpoint, w Weights) error {
	return e.post(ctx, "/v1/unload_lora_adapter", map[string]string{"lora_name": w.tag()}, nil)
}
