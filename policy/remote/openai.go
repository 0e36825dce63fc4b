package remote

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/forager-rl/forager/policy"
)

// openAI speaks /v1/completions with nothing but text, for evaluation. The text
// is streamed and cut here after the first stop string, because servers that
// stop by themselves take the stop string away and do not say which it was.
type openAI struct {
	tokenizer policy.Tokenizer
	extra     map[string]float64
}

func (d openAI) complete(ctx context.Context, e *endpoint, r request) (result, error) {
	q := map[string]any{
		"model": e.model, "prompt": d.tokenizer.Decode(r.Context), "max_tokens": r.maxTokens, "temperature": r.Temperature,
		"top_p": allOr(r.TopP), "seed": r.seed(), "stream": true,
	}
	if r.TopK > 0 {
		q["top_k"] = r.TopK // no part of OpenAI's own protocol
	}
	for name, value := range d.extra {
		q[name] = value
	}
	s := textStream{stop: r.Stop}
	if err := e.exchange(ctx, http.MethodPost, "/v1/completions", q, s.read); err != nil {
		return result{}, err
	}
	done := result{tokens: d.tokenizer.Encode(s.text.String())}
	switch {
	case s.stopped:
		done.stop = policy.StopString
	case s.finish == "length":
		done.stop = policy.StopLength
	case s.finish == "stop":
		done.stop = policy.StopEOS
		if eos := d.tokenizer.EOS(); eos >= 0 {
			done.tokens = append(done.tokens, eos)
		}
	default:
		return result{}, fmt.Errorf("finish reason %q: %w", s.finish, errAborted)
	}
	return done, nil
}

// textStream gathers the text of server-sent events up to the first stop string.
type textStream struct {
	stop    []string
	text    strings.Builder
	stopped bool
	finish  string
}

// read ends at the stop string, at the end of the stream, or with an error when
// the stream broke off.
func (s *textStream) read(body io.Reader) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(bytes.TrimSpace(lines.Bytes()), []byte("data:"))
		data = bytes.TrimSpace(data)
		switch {
		case !ok || len(data) == 0:
			continue
		case string(data) == "[DONE]":
			return nil
		}
		var event struct {
			Choices []struct {
				Text         string `json:"text"`
				FinishReason string `json:"finish_reason"`
			} `json:"choices"`
			Error json.RawMessage `json:"error"`
		}
		if err := json.Unmarshal(data, &event); err != nil {
			return fmt.Errorf("event is not what was expected: %w", err)
		}
		if len(event.Error) > 0 && string(event.Error) != "null" {
			return fmt.Errorf("%s: %w", event.Error, errAborted)
		}
		for _, c := range event.Choices {
			s.add(c.Text)
			if c.FinishReason != "" {
				s.finish = c.FinishReason
			}
		}
		if s.stopped {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%w: the answer broke off: %w", errBroken, err)
	}
	if s.finish == "" {
		return fmt.Errorf("%w: the answer broke off", errBroken)
	}
	return nil
}

// add appends text and cuts it after the stop string that ends first.
func (s *textStream) add(more string) {
	if s.stopped {
		return
	}
	before := s.text.Len()
	s.text.WriteString(more)
	text, end := s.text.String(), -1
	for _, stop := range s.stop {
		from := max(0, before-len(stop)+1)
		if i := strings.Index(text[from:], stop); stop != "" && i >= 0 && (end < 0 || from+i+len(stop) < end) {
			end = from + i + len(stop)
		}
	}
	if end >= 0 {
		s.stopped = true
		s.text.Reset()
		s.text.WriteString(text[:end])
	}
}

func (openAI) load(context.Context, *endpoint, Weights) error   { return fixedWeights(OpenAI) }
func (openAI) unload(context.Context, *endpoint, Weights) error { return nil }

func (openAI) top(context.Context, *endpoint, []int32, float32) (float64, error) {
	return 0, fixedWeights(OpenAI)
}
