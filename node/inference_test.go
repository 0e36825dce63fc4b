package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/forager-rl/forager/policy"
	"github.com/forager-rl/forager/policy/lm"
	"github.com/forager-rl/forager/policy/remote"
	"github.com/forager-rl/forager/policy/tokenizer"
)

// server speaks vLLM's or SGLang's protocol over native engines, one for each
// set of weights that it holds, so that what actors record can be compared with
// the learner.
type server struct {
	*httptest.Server
	kind  remote.Kind
	base  *lm.Model
	tok   *tokenizer.Tokenizer
	draws atomic.Uint64

	mu    sync.Mutex
	held  map[string]*heldWeights
	label string // SGLang: the only weights
	most  int    // sets of weights at once
}

// heldWeights are an engine at work.
type heldWeights struct {
	engine   *lm.Engine
	requests sync.WaitGroup
	stop     func()
}

func newServer(t *testing.T, kind remote.Kind, folder string) *server {
	t.Helper()
	base, l, err := loadPolicy(folder, TemplateAuto)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{kind: kind, base: base, tok: l.tokenizer, held: map[string]*heldWeights{}, label: "default"}
	name := "tiny"
	if kind == remote.SGLang {
		name = s.label
	}
	if err := s.add(name, base); err != nil {
		t.Fatal(err)
	}
	s.Server = httptest.NewServer(s)
	t.Cleanup(func() {
		s.Close()
		for name := range s.held {
			s.drop(name)
		}
	})
	return s
}

func (s *server) add(name string, m *lm.Model) error {
	engine, err := lm.NewEngine(m, 0, s.tok, lm.DefaultEngineConfig())
	if err != nil {
		return err
	}
	s.drop(name)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- engine.Run(ctx) }()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[name] = &heldWeights{engine: engine, stop: func() {
		cancel()
		<-ended
	}}
	s.most = max(s.most, len(s.held))
	return nil
}

// mostHeld is how many sets of weights there were at once.
func (s *server) mostHeld() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most
}

// drop ends the engine of weights when it has no more requests.
func (s *server) drop(name string) {
	s.mu.Lock()
	w := s.held[name]
	delete(s.held, name)
	s.mu.Unlock()
	if w != nil {
		w.requests.Wait()
		w.stop()
	}
}

// requestBody is the fields of all requests that the tests send.
type requestBody struct {
	Model       string   `json:"model"`
	Prompt      []int32  `json:"prompt"`
	MaxTokens   int      `json:"max_tokens"`
	Temperature float32  `json:"temperature"`
	Stop        []string `json:"stop"`
	Seed        uint64   `json:"seed"`
	InputIDs    []int32  `json:"input_ids"`
	Sampling    struct {
		MaxTokens   int      `json:"max_new_tokens"`
		Temperature float32  `json:"temperature"`
		Stop        []string `json:"stop"`
	} `json:"sampling_params"`
	AdapterName   string `json:"lora_name"`
	AdapterPath   string `json:"lora_path"`
	ModelPath     string `json:"model_path"`
	WeightVersion string `json:"weight_version"`
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body requestBody
	if r.Method == http.MethodPost {
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	var answer any
	var err error
	switch r.URL.Path {
	case "/v1/models":
		answer = map[string]any{"data": []any{map[string]any{"id": "tiny", "owned_by": s.kind, "max_model_len": s.base.Arch.ContextLength}}}
	case "/v1/load_lora_adapter":
		err = s.loadAdapter(body.AdapterName, body.AdapterPath)
	case "/v1/unload_lora_adapter":
		s.drop(body.AdapterName)
	case "/model_info":
		answer = map[string]any{"weight_version": s.current()}
	case "/update_weights_from_disk":
		answer, err = map[string]any{"success": true}, s.replace(body.WeightVersion, body.ModelPath)
	case "/v1/completions":
		answer, err = s.vllm(body)
	case "/generate":
		answer, err = s.sglang(body)
	default:
		http.NotFound(w, r)
		return
	}
	if err == nil {
		err = json.NewEncoder(w).Encode(answer)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (s *server) loadAdapter(name, path string) error {
	adapter, err := lm.LoadAdapter(path, s.base.Arch)
	if err != nil {
		return err
	}
	merged, err := adapter.Merge(s.base)
	if err != nil {
		return err
	}
	return s.add(name, merged)
}

func (s *server) replace(label, path string) error {
	m, _, err := loadPolicy(path, TemplateAuto)
	if err != nil {
		return err
	}
	if err := s.add(label, m); err != nil {
		return err
	}
	s.mu.Lock()
	previous := s.label
	s.label = label
	s.mu.Unlock()
	if previous != label {
		s.drop(previous)
	}
	return nil
}

func (s *server) vllm(b requestBody) (any, error) {
	_, done, err := s.complete(b.Model, policy.Request{Context: b.Prompt, MaxTokens: b.MaxTokens, Temperature: b.Temperature, Stop: b.Stop, Seed: b.Seed})
	top := make([]map[string]float32, len(done.Tokens))
	for i, p := range done.Logprobs {
		top[i] = map[string]float32{"x": p}
	}
	choice := map[string]any{
		"finish_reason": "stop", "stop_reason": nil, "token_ids": done.Tokens, "prompt_token_ids": b.Prompt,
		"logprobs": map[string]any{"token_logprobs": done.Logprobs, "top_logprobs": top},
	}
	switch done.Stop {
	case policy.StopString:
		choice["stop_reason"] = "a stop string"
	case policy.StopLength:
		choice["finish_reason"] = "length"
	}
	return map[string]any{"model": b.Model, "choices": []any{choice}}, err
}

func (s *server) sglang(b requestBody) (any, error) {
	label, done, err := s.complete("", policy.Request{
		Context: b.InputIDs, MaxTokens: b.Sampling.MaxTokens, Temperature: b.Sampling.Temperature, Stop: b.Sampling.Stop,
		Seed: s.draws.Add(1), // draws are the server's own
	})
	var pairs [][]any
	for i, id := range done.Tokens {
		pairs = append(pairs, []any{done.Logprobs[i], id, nil})
	}
	finish := map[string]any{"type": "stop", "matched": 0}
	if done.Stop == policy.StopLength {
		finish = map[string]any{"type": "length"}
	}
	return map[string]any{"meta_info": map[string]any{
		"finish_reason": finish, "output_token_logprobs": pairs, "output_top_logprobs": [][][]any{pairs}, "weight_version": label,
	}}, err
}

func (s *server) current() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.label
}

// complete continues with the weights of a name, or with the only ones, and tells
// their name.
func (s *server) complete(name string, req policy.Request) (string, policy.Completion, error) {
	s.mu.Lock()
	if name == "" {
		name = s.label
	}
	w := s.held[name]
	if w == nil {
		s.mu.Unlock()
		return name, policy.Completion{}, fmt.Errorf("no weights %q", name)
	}
	w.requests.Add(1)
	s.mu.Unlock()
	defer w.requests.Done()
	done, err := w.engine.Generate(context.Background(), req)
	return name, done, err
}
