package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy"
)

// sglang speaks SGLang's own /generate. Ids and log-probabilities come in pairs,
// after the temperature and before top-k and top-p. Each answer names the
// version of the weights that made it. Draws are the server's own: SGLang takes
// a seed in its deterministic mode alone.
type sglang struct{}

type sglangRequest struct {
	InputIDs        []int32        `json:"input_ids"`
	Sampling        sglangSampling `json:"sampling_params"`
	ReturnLogprob   bool           `json:"return_logprob"`
	LogprobStart    int            `json:"logprob_start_len"` // -1: of new tokens only
	TopLogprobs     int            `json:"top_logprobs_num,omitempty"`
	Adapter         string         `json:"lora_path,omitempty"`
	TextInLogprobs  bool           `json:"return_text_in_logprobs"`
	StreamResponses bool           `json:"stream"`
}

type sglangSampling struct {
	MaxNewTokens      int      `json:"max_new_tokens"`
	Temperature       float32  `json:"temperature"`
	TopP              float32  `json:"top_p"`
	TopK              int      `json:"top_k"`
	MinP              float32  `json:"min_p"`
	RepetitionPenalty float32  `json:"repetition_penalty"`
	Stop              []string `json:"stop,omitempty"`
	StopTokens        []int32  `json:"stop_token_ids,omitempty"`
	NoStopTrim        bool     `json:"no_stop_trim"`
	MinNewTokens      int      `json:"min_new_tokens,omitempty"`
	SkipSpecial       bool     `json:"skip_special_tokens"`
}

type sglangAnswer struct {
	Meta struct {
		Finish struct {
			Type    string          `json:"type"`    // stop, length or abort
			Matched json.RawMessage `json:"matched"` // a stop string, or the id of a token
			Message string          `json:"message"`
		} `json:"finish_reason"`
		Tokens        []sglangToken   `json:"output_token_logprobs"`
		Top           [][]sglangToken `json:"output_top_logprobs"`
		WeightVersion string          `json:"weight_version"`
	} `json:"meta_info"`
}

// sglangToken is [log-probability, id, text or null].
type sglangToken struct {
	logprob float32
	id      int32
}

// UnmarshalJSON reads the triple.
func (t *sglangToken) UnmarshalJSON(data []byte) error {
	var fields []json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	if len(fields) < 2 {
		return fmt.Errorf("log-probability %s has no token id", data)
	}
	return errors.Join(json.Unmarshal(fields[0], &t.logprob), json.Unmarshal(fields[1], &t.id))
}

func (sglang) request(r request) sglangRequest {
	q := sglangRequest{
		InputIDs: r.Context, ReturnLogprob: true, LogprobStart: -1,
		Sampling: sglangSampling{
			MaxNewTokens: r.maxTokens, Temperature: r.Temperature, TopP: allOr(r.TopP), TopK: orNone(r.TopK), RepetitionPenalty: 1,
			Stop: r.Stop, StopTokens: r.StopTokens, NoStopTrim: true, MinNewTokens: r.MinTokens,
		},
	}
	if r.weights != nil && r.weights.Adapter {
		q.Adapter = r.weights.tag()
	}
	return q
}

func (d sglang) complete(ctx context.Context, e *endpoint, r request) (result, error) {
	q := d.request(r)
	var a sglangAnswer
	err := e.post(ctx, "/generate", q, &a)
	if q.Adapter != "" && rejected(err, http.StatusBadRequest) && strings.Contains(err.Error(), q.Adapter) {
		return result{}, fmt.Errorf("%w: %w", errNotLoaded, err)
	}
	if err != nil {
		return result{}, err
	}
	finish := a.Meta.Finish
	done := result{tag: a.Meta.WeightVersion}
	if q.Adapter != "" {
		done.tag = q.Adapter
	}
	switch {
	case finish.Type == "length":
		done.stop = policy.StopLength
	case finish.Type == "stop" && strings.HasPrefix(string(finish.Matched), `"`):
		done.stop = policy.StopString
	case finish.Type == "stop":
		done.stop = policy.StopEOS
	default:
		return result{}, fmt.Errorf("finish reason %q %s: %w", finish.Type, finish.Message, errAborted)
	}
	if len(a.Meta.Tokens) == 0 {
		return result{}, forager.WithHint(fmt.Errorf("the answer has no output_token_logprobs: %w", ErrUnsuitable),
			"a router or proxy between must let return_logprob through")
	}
	for _, t := range a.Meta.Tokens {
		done.tokens = append(done.tokens, t.id)
		done.logprobs = append(done.logprobs, t.logprob)
	}
	return done, nil
}

func (d sglang) top(ctx context.Context, e *endpoint, context []int32, temperature float32) (float64, error) {
	q := d.request(request{Request: policy.Request{Context: context, Temperature: temperature}, maxTokens: 1})
	q.TopLogprobs = 1
	var a sglangAnswer
	if err := e.post(ctx, "/generate", q, &a); err != nil {
		return 0, err
	}
	if len(a.Meta.Top) == 0 || len(a.Meta.Top[0]) == 0 {
		return 0, fmt.Errorf("/generate: the answer has no output_top_logprobs: %w", ErrUnsuitable)
	}
	return float64(a.Meta.Top[0][0].logprob), nil
}

// load adds an adapter, or replaces the whole model and labels it. A server that
// another actor has brought this version or a later one keeps what it has.
func (d sglang) load(ctx context.Context, e *endpoint, w Weights) error {
	var answer struct {
		Success bool   `json:"success"`
		Message string `json:"message"`
		Error   string `json:"error_message"`
	}
	if w.Adapter {
		err := e.post(ctx, "/load_lora_adapter", map[string]string{"lora_name": w.tag(), "lora_path": w.Path}, &answer)
		if rejected(err, http.StatusBadRequest) && strings.Contains(err.Error(), "already") {
			return nil
		}
		return forager.WithHint(err, "start SGLang with --enable-lora, --max-lora-rank and --lora-target-modules that fit trainer.lora; it must be able to read "+w.Path)
	}
	label, err := d.weightVersion(ctx, e)
	if err != nil {
		return err
	}
	if name, version, ok := parseTag(label); ok && name == w.Name && version >= w.Version {
		return nil
	}
	err = e.post(ctx, "/update_weights_from_disk", map[string]any{"model_path": w.Path, "weight_version": w.tag()}, &answer)
	if err == nil && !answer.Success {
		err = errors.New("/update_weights_from_disk: " + answer.Message)
	}
	return forager.WithHint(err, "SGLang must be able to read "+w.Path)
}

func (sglang) unload(ctx context.Context, e *endpoint, w Weights) error {
	return e.post(ctx, "/unload_lora_adapter", map[string]string{"lora_name": w.tag()}, nil)
}

// weightVersion asks for the label of the loaded weights; older servers tell it
// elsewhere.
func (sglang) weightVersion(ctx context.Context, e *endpoint) (string, error) {
	var info struct {
		WeightVersion string `json:"weight_version"`
	}
	err := e.get(ctx, "/model_info", &info)
	if rejected(err, http.StatusNotFound) {
		err = e.get(ctx, "/get_weight_version", &info)
	}
	if rejected(err, http.StatusNotFound) {
		return "", forager.WithHint(fmt.Errorf("%w: %w", ErrUnsuitable, err), "SGLang labels its weights from 0.5 on")
	}
	return info.WeightVersion, err
}
