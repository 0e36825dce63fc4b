package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/forager-rl/forager"
)

// modelList is the answer of /v1/models, with the fields that servers add.
type modelList struct {
	Data []struct {
		ID            string  `json:"id"`
		OwnedBy       string  `json:"owned_by"`
		Parent        *string `json:"parent"`        // of a LoRA adapter: its base model
		ContextLength int     `json:"max_model_len"` // vLLM and SGLang
		Meta          struct {
			ContextLength int `json:"n_ctx"` // llama.cpp
		} `json:"meta"`
	} `json:"data"`
}

// identify waits until a server answers and finds out its kind, the name of its
// model and the context length. The kinds that are trained with write their own
// name as the model's owner.
func (s *Servers) identify(ctx context.Context, e *endpoint) (Kind, error) {
	var list modelList
	for attempt := 0; ; attempt++ {
		err := e.get(ctx, "/v1/models", &list)
		if err == nil {
			break
		}
		if retry, asked := again(err); !retry || !backOff(ctx, attempt, asked, s.cfg.MaxWait) {
			return "", s.explainSilence(e, err)
		}
		s.logger.Info("waiting for an inference server", "url", e.url, "error", err)
	}
	kind := s.cfg.Kind
	owner := ""
	for _, m := range list.Data {
		if owner == "" {
			owner = m.OwnedBy
		}
		if m.Parent != nil && *m.Parent != "" && s.cfg.Model == "" {
			continue
		}
		if e.model == "" && (s.cfg.Model == "" || m.ID == s.cfg.Model) {
			e.model, e.context = m.ID, max(m.ContextLength, m.Meta.ContextLength)
		}
	}
	if e.model == "" {
		if s.cfg.Model == "" {
			return "", forager.WithHint(fmt.Errorf("%s lists no model", e.url), "name it with policy.remote.model")
		}
		e.model = s.cfg.Model // some servers serve more than they list
	}
	if kind == Auto {
		switch k := Kind(strings.ToLower(owner)); k {
		case VLLM, SGLang, LlamaCpp:
			kind = k
		default:
			kind = OpenAI
		}
	}
	if kind == LlamaCpp && e.context == 0 {
		return kind, e.readProps(ctx)
	}
	return kind, nil
}

// readProps asks older llama.cpp servers for the context length of a slot.
func (e *endpoint) readProps(ctx context.Context) error {
	var props struct {
		Default struct {
			ContextLength int `json:"n_ctx"`
		} `json:"default_generation_settings"`
	}
	if err := e.get(ctx, "/props", &props); err != nil {
		return fmt.Errorf("%s: %w", e.url, err)
	}
	e.context = props.Default.ContextLength
	return nil
}

// explainSilence names the server and the next step.
func (s *Servers) explainSilence(e *endpoint, err error) error {
	err = fmt.Errorf("%s: %w", e.url, err)
	switch {
	case rejected(err, http.StatusUnauthorized), rejected(err, http.StatusForbidden):
		return forager.WithHint(err, "name the variable that holds the server's key with policy.remote.api_key_env")
	case rejected(err, http.StatusNotFound):
		return forager.WithHint(err, "this is no inference server: check policy.remote.urls")
	case errors.Is(err, errBroken):
		return forager.WithHint(err, "start the server or correct policy.remote.urls; policy.remote.start_timeout is how long it is waited for")
	}
	return err
}
