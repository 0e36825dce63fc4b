package remote

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// bytesTokenizer has one token a byte and an end-of-sequence token.
type bytesTokenizer struct{}

const endOfSequence = 256

func (bytesTokenizer) Encode(text string) []int32 {
	ids := make([]int32, len(text))
	for i := range len(text) {
		ids[i] = int32(text[i])
	}
	return ids
}
func (t bytesTokenizer) EncodePlain(text string) []int32 { return t.Encode(text) }
func (bytesTokenizer) Decode(ids []int32) string {
	var text strings.Builder
	for _, id := range ids {
		if id < endOfSequence {
			text.WriteByte(byte(id))
		}
	}
	return text.String()
}
func (bytesTokenizer) VocabSize() int { return endOfSequence + 1 }
func (bytesTokenizer) EOS() int32     { return endOfSequence }

// fake is an inference server that says the same to every prompt: "hm</answer>".
// It keeps the promises of the real one that the tests are about: names of
// adapters, labels of weights, log-probabilities that follow the temperature.
type fake struct {
	*httptest.Server
	kind Kind

	mu       sync.Mutex
	adapters map[string]string // name -> path
	label    string            // of SGLang's weights
	updates  int               // of SGLang's weights
	calls    []call
	busy     int // completions under way
	most     int // of them at once
	rawLogs  bool
	noIDs    bool
	// trouble answers a request in the server's place; it may be nil.
	trouble func(path string, n int, w http.ResponseWriter) bool
	hold    chan struct{} // when not nil, completions wait until it is closed
}

type call struct {
	path string
	body map[string]any
}

func newFake(t *testing.T, kind Kind) *fake {
	f := &fake{kind: kind, adapters: map[string]string{}, label: "default"}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// completions counts requests to continue something, but for those of Open.
func (f *fake) completions() []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []call
	for _, c := range f.calls {
		if slices.Contains([]string{"/v1/completions", "/generate", "/completion"}, c.path) {
			list = append(list, c)
		}
	}
	return list
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := call{path: r.URL.Path}
	data, _ := io.ReadAll(r.Body)
	if len(data) > 0 {
		if err := json.Unmarshal(data, &c.body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	f.mu.Lock()
	f.calls = append(f.calls, c)
	n := 0
	for _, earlier := range f.calls {
		if earlier.path == c.path {
			n++
		}
	}
	trouble, hold := f.trouble, f.hold
	f.mu.Unlock()
	if trouble != nil && trouble(c.path, n, w) {
		return
	}
	switch c.path {
	case "/v1/models":
		f.models(w)
	case "/v1/completions", "/generate", "/completion":
		f.mu.Lock()
		f.busy++
		f.most = max(f.most, f.busy)
		f.mu.Unlock()
		if hold != nil {
			select {
			case <-hold:
			case <-r.Context().Done():
			}
		}
		f.complete(w, c)
		f.mu.Lock()
		f.busy--
		f.mu.Unlock()
	default:
		f.control(w, c)
	}
}

func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

func (f *fake) models(w http.ResponseWriter) {
	owner := map[Kind]string{VLLM: "vllm", SGLang: "sglang", LlamaCpp: "llamacpp", OpenAI: "me"}[f.kind]
	first := map[string]any{"id": "tiny", "object": "model", "owned_by": owner}
	switch f.kind {
	case VLLM, SGLang:
		first["max_model_len"], first["parent"] = 40, nil
	case LlamaCpp:
		first["meta"] = map[string]any{"n_ctx": 40, "n_ctx_train": 8192}
	}
	adapter := maps.Clone(first)
	adapter["id"], adapter["parent"] = "other-v00000001", "tiny"
	answer(w, map[string]any{"object": "list", "data": []any{first, adapter}})
}

// complete says "hm</answer>", or as much of it as is allowed.
func (f *fake) complete(w http.ResponseWriter, c call) {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := "hm</answer>"
	switch f.kind {
	case VLLM:
		model := c.body["model"].(string)
		if model != "tiny" && f.adapters[model] == "" {
			w.WriteHeader(http.StatusNotFound)
			answer(w, map[string]any{"error": map[string]any{"message": "The model `" + model + "` does not exist.", "code": 404}})
			return
		}
		logp := f.logprob(c.body["temperature"].(float64))
		ids, finish := cut(text, c.body["max_tokens"].(float64))
		choice := map[string]any{"finish_reason": finish, "stop_reason": nil, "token_ids": ids, "prompt_token_ids": c.body["prompt"]}
		if finish == "stop" {
			choice["stop_reason"] = "</answer>"
		}
		if f.noIDs {
			delete(choice, "token_ids")
		}
		choice["logprobs"] = map[string]any{"token_logprobs": slices.Repeat([]float64{logp}, len(ids)), "top_logprobs": slices.Repeat([]map[string]float64{{"h": logp}}, len(ids))}
		answer(w, map[string]any{"model": model, "choices": []any{choice}})
	case SGLang:
		sampling := c.body["sampling_params"].(map[string]any)
		if name, _ := c.body["lora_path"].(string); name != "" && f.adapters[name] == "" {
			w.WriteHeader(http.StatusBadRequest)
			answer(w, map[string]any{"error": map[string]any{"message": "The following requested LoRA adapters are not loaded: {'" + name + "'}"}})
			return
		}
		logp := f.logprob(sampling["temperature"].(float64))
		ids, finish := cut(text, sampling["max_new_tokens"].(float64))
		meta := map[string]any{"weight_version": f.label, "finish_reason": map[string]any{"type": finish, "matched": "</answer>"}}
		var pairs [][]any
		for _, id := range ids {
			pairs = append(pairs, []any{logp, id, nil})
		}
		meta["output_token_logprobs"], meta["output_top_logprobs"] = pairs, [][][]any{pairs}
		answer(w, map[string]any{"text": text, "meta_info": meta})
	case LlamaCpp:
		ids, finish := cut(text, c.body["n_predict"].(float64))
		kind := map[string]string{"stop": "word", "length": "limit"}[finish]
		answer(w, map[string]any{"content": "hm", "tokens": ids, "stop_type": kind})
	default:
		for _, piece := range []string{"hm</an", "swer> and more", " that is cut"} {
			fmt.Fprintf(w, "data: {\"choices\":[{\"text\":%q,\"finish_reason\":null}]}\n\n", piece)
		}
		fmt.Fprint(w, "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
	}
}

func (f *fake) logprob(temperature float64) float64 {
	if f.rawLogs || temperature == 0 {
		return -1
	}
	return -1 - temperature/8
}

func cut(text string, limit float64) ([]int32, string) {
	ids := bytesTokenizer{}.Encode(text)
	if int(limit) < len(ids) {
		return ids[:int(limit)], "length"
	}
	return ids, "stop"
}

// control is what changes or tells weights.
func (f *fake) control(w http.ResponseWriter, c call) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name, _ := c.body["lora_name"].(string)
	switch {
	case strings.HasSuffix(c.path, "/load_lora_adapter") && f.adapters[name] != "":
		w.WriteHeader(http.StatusBadRequest)
		answer(w, map[string]any{"error": map[string]any{"message": "The lora adapter '" + name + "' has already been loaded."}})
	case strings.HasSuffix(c.path, "/load_lora_adapter"):
		f.adapters[name] = c.body["lora_path"].(string)
		f.done(w)
	case strings.HasSuffix(c.path, "/unload_lora_adapter"):
		delete(f.adapters, name)
		f.done(w)
	case c.path == "/model_info" && f.kind == SGLang:
		answer(w, map[string]any{"weight_version": f.label})
	case c.path == "/update_weights_from_disk":
		f.label = c.body["weight_version"].(string)
		f.updates++
		answer(w, map[string]any{"success": true, "message": "Succeeded to update model weights."})
	default:
		http.NotFound(w, nil)
	}
}

// done says so in the server's way: vLLM with a line of text.
func (f *fake) done(w http.ResponseWriter) {
	if f.kind == VLLM {
		fmt.Fprint(w, "Success: the adapters were changed.")
		return
	}
	answer(w, map[string]any{"success": true, "error_message": "", "loaded_adapters": f.adapters})
}

// restart forgets what the server was given.
func (f *fake) restart() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.adapters, f.label = map[string]string{}, "default"
}

func (f *fake) fail(trouble func(path string, n int, w http.ResponseWriter) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trouble, f.calls = trouble, nil
}

// quick does not wait long for anything.
func quick(fakes ...*fake) Config {
	cfg := DefaultConfig()
	for _, f := range fakes {
		cfg.URLs = append(cfg.URLs, f.URL)
	}
	cfg.MaxWait, cfg.Timeout, cfg.StartTimeout = 5*time.Millisecond, 2*time.Second, 300*time.Millisecond
	cfg.BreakerPause, cfg.RetryFor = 50*time.Millisecond, 500*time.Millisecond
	return cfg
}

var training = Use{Train: true, Temperature: 1, TopP: 1}

func open(t *testing.T, cfg Config, use Use) (*Servers, error) {
	t.Helper()
	s, err := Open(t.Context(), cfg, use, Deps{Tokenizer: bytesTokenizer{}, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err == nil {
		t.Cleanup(s.Close)
	}
	return s, err
}

func mustOpen(t *testing.T, cfg Config, use Use) *Servers {
	t.Helper()
	s, err := open(t, cfg, use)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
