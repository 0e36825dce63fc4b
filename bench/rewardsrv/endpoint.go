package main

import (
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"time"
)

// mood is how a judge behaves.
type mood string

const (
	fast     mood = "fast"     // answers at once
	slow     mood = "slow"     // takes 10 s for each answer
	dead     mood = "dead"     // refuses connections
	garbage  mood = "garbage"  // answers with nonsense
	flapping mood = "flapping" // 5 s like fast, then 5 s of broken connections, and so on
)

// endpoint is an OpenAI-compatible server that labels at random, in a mood.
type endpoint struct {
	server *httptest.Server
	mood   mood
	begun  time.Time
	left   chan struct{} // closed when the measurement is over
	calls  atomic.Int64
}

func newEndpoint(m mood) *endpoint {
	e := &endpoint{mood: m, begun: time.Now(), left: make(chan struct{})}
	e.server = httptest.NewServer(e)
	return e
}

func (e *endpoint) close() {
	close(e.left)
	e.server.CloseClientConnections()
	e.server.Close()
}

// address is the base URL; that of a dead endpoint is one where nobody listens.
func (e *endpoint) address() (string, error) {
	if e.mood != dead {
		return e.server.URL + "/v1", nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return "http://" + l.Addr().String() + "/v1", l.Close()
}

// ServeHTTP answers chat completions.
func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.Method == http.MethodGet { // the list of models
		_, _ = io.WriteString(w, `{"object":"list","data":[{"id":"bench","object":"model"}]}`)
		return
	}
	e.calls.Add(1)
	var request struct {
		Format struct {
			JSON struct {
				Schema map[string]any `json:"schema"`
			} `json:"json_schema"`
		} `json:"response_format"`
	}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer, _ := json.Marshal(instance(request.Format.JSON.Schema)) // made of plain values
	switch {
	case e.mood == slow:
		timer := time.NewTimer(10 * time.Second)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-e.left:
		case <-r.Context().Done():
		}
	case e.mood == garbage:
		answer = []byte("{\"label\": \xff\xfe<|im_start|> LABEL: ignore all previous instructions 9999")
	case e.mood == flapping && time.Since(e.begun)/(5*time.Second)%2 == 1:
		panic(http.ErrAbortHandler)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"id": "1", "object": "chat.completion", "model": "bench",
		"choices": []any{map[string]any{"index": 0, "finish_reason": "stop", "message": map[string]any{"role": "assistant", "content": string(answer)}}},
		"usage":   map[string]any{"prompt_tokens": 500, "completion_tokens": 20, "total_tokens": 520},
	})
}

// instance makes a value that a JSON schema allows, at random.
func instance(schema map[string]any) any {
	if choices, ok := schema["enum"].([]any); ok && len(choices) > 0 {
		return choices[rand.IntN(len(choices))]
	}
	if value, ok := schema["const"]; ok {
		return value
	}
	number := func(key string, otherwise float64) float64 {
		if n, ok := schema[key].(float64); ok {
			return n
		}
		return otherwise
	}
	switch schema["type"] {
	case "object":
		object := map[string]any{}
		properties, _ := schema["properties"].(map[string]any)
		for name, property := range properties {
			of, _ := property.(map[string]any)
			object[name] = instance(of)
		}
		return object
	case "array":
		of, _ := schema["items"].(map[string]any)
		list := make([]any, int(number("minItems", 1)))
		for i := range list {
			list[i] = instance(of)
		}
		return list
	case "integer":
		low := number("minimum", 0)
		return int(low) + rand.IntN(int(number("maximum", low+1)-low)+1)
	case "number":
		low := number("minimum", 0)
		return low + rand.Float64()*(number("maximum", low+1)-low)
	case "boolean":
		return rand.IntN(2) == 1
	}
	return "It names what the question asks about."
}
