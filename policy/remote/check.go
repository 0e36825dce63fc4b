package remote

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy"
)

// ErrUnsuitable means that a server works, but not for what it is to be used
// for. The message names the option of the server that changes it.
var ErrUnsuitable = errors.New("the server is not fit for training")

// fixedWeights says why a kind of server is not trained with.
func fixedWeights(k Kind) error {
	reason := "answers with text instead of token ids, and its weights stay as they are"
	if k == LlamaCpp {
		reason = "leaves out log-probabilities around stop strings, and its weights stay as they are"
	}
	return forager.WithHint(fmt.Errorf("a server of kind %s %s: %w", k, reason, ErrUnsuitable),
		"use it for evaluation and judges; train with vLLM, SGLang or the engine of this process (leave policy.remote.urls empty)")
}

// checkTokens plays one short completion as training would and refuses a server
// whose answer could not be learned from.
func (s *Servers) checkTokens(ctx context.Context, e *endpoint, tok policy.Tokenizer) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	prompt := tok.Encode("The capital of the country is")
	_, err := s.dialect.complete(ctx, e, request{
		Request:   policy.Request{Context: prompt, MaxTokens: 4, Temperature: s.use.Temperature, TopK: s.use.TopK, TopP: s.use.TopP, Stop: []string{"</answer>"}},
		maxTokens: 4, train: true,
	})
	if err != nil {
		return err
	}
	return s.checkLogprobs(ctx, e, prompt)
}

// checkLogprobs finds out whether the server's log-probabilities are taken
// before or after the temperature, by asking for those of the likeliest token at
// two temperatures, and refuses what does not match the sampling of training:
// after temperature, before top-k and top-p.
func (s *Servers) checkLogprobs(ctx context.Context, e *endpoint, prompt []int32) error {
	const hot, close = 4, 1e-3
	plain, err := s.dialect.top(ctx, e, prompt, 1)
	if err != nil {
		return err
	}
	scaled, err := s.dialect.top(ctx, e, prompt, hot)
	if err != nil {
		return err
	}
	if plain > -close {
		s.logger.Warn("the model is too sure of itself to tell how the server takes log-probabilities", "url", e.url)
		return nil
	}
	follows := math.Abs(plain-scaled) > close
	switch {
	case !follows && s.use.Temperature != 1:
		hint := "start vLLM with --logprobs-mode processed_logprobs, or set episode.temperature to 1"
		if s.kind == SGLang {
			hint = "start SGLang without SGLANG_RETURN_ORIGINAL_LOGPROB, or set episode.temperature to 1"
		}
		return forager.WithHint(fmt.Errorf("log-probabilities are taken before the temperature, which is %g: %w", s.use.Temperature, ErrUnsuitable), hint)
	case follows && s.kind == VLLM && (s.use.TopK > 0 || s.use.TopP > 0 && s.use.TopP < 1):
		return forager.WithHint(fmt.Errorf("log-probabilities are renormalised over top_k and top_p: %w", ErrUnsuitable),
			"set episode.top_k to 0 and episode.top_p to 1, or start vLLM with --logprobs-mode raw_logprobs and sample at temperature 1")
	}
	return nil
}

// checkCompletion refuses an answer whose tokens and log-probabilities do not
// belong together.
func checkCompletion(r result, train bool) error {
	if !train {
		return nil
	}
	if len(r.logprobs) != len(r.tokens) {
		return fmt.Errorf("%d tokens but %d log-probabilities: %w", len(r.tokens), len(r.logprobs), ErrUnsuitable)
	}
	for i, p := range r.logprobs {
		if math.IsNaN(float64(p)) || p > 1e-3 {
			return fmt.Errorf("token %d has log-probability %g: %w", i, p, ErrUnsuitable)
		}
	}
	return nil
}
