// Package judgetest is an OpenAI-compatible endpoint for tests, which answers
// chat completions as the test says. It imports the standard library only;
// tests of packages that use a judge import it.
package judgetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Call is one request for a chat completion.
type Call struct {
	Number int // 1 for the first
	Model  string
	System string
	User   string
	// Schema is the JSON schema that the answer is to follow, nil for free text.
	Schema json.RawMessage
	// Body is the whole request, Header its header.
	Body   map[string]json.RawMessage
	Header http.Header
}

// Reply is what the endpoint does with a call. The zero Reply is an empty answer.
type Reply struct {
	Text string // of the answer or, when Status is not 200, of the error
	// Latency is how long the endpoint takes. Never is forever: until the caller
	// leaves or the server is closed.
	Latency time.Duration
	Status  int         // 0 means 200
	Header  http.Header // in addition
	// PromptTokens and CompletionTokens are reported as usage, unless NoUsage. When
	// both are 0 the words are counted.
	PromptTokens, CompletionTokens int
	NoUsage                        bool
	FinishReason                   string // "" means stop
	// Raw is the whole body when it is not nil; ContentType its type, JSON for "".
	Raw         io.Reader
	ContentType string
	// Abort breaks the connection instead of answering.
	Abort bool
}

// Never is the latency of an endpoint that hangs.
const Never = time.Duration(1<<63 - 1)

// Endpoint is the server. It counts calls and how many of them are under way.
type Endpoint struct {
	*httptest.Server
	reply              atomic.Pointer[func(Call) Reply]
	calls, lists       atomic.Int64
	inFlight, mostSeen atomic.Int64
	closed             chan struct{}
	once               sync.Once
}

// New starts an endpoint that ends with the test.
func New(t testing.TB, reply func(Call) Reply) *Endpoint {
	t.Helper()
	e := unstarted(reply)
	e.Server = httptest.NewServer(e)
	t.Cleanup(e.Close)
	return e
}

// unstarted is an endpoint without a network.
func unstarted(reply func(Call) Reply) *Endpoint {
	e := &Endpoint{closed: make(chan struct{})}
	e.Answer(reply)
	return e
}

// Close ends the calls that hang and then the server. Further calls do nothing.
func (e *Endpoint) Close() {
	e.once.Do(func() { close(e.closed) })
	e.Server.Close()
}

// Answer changes what the endpoint does from now on.
func (e *Endpoint) Answer(reply func(Call) Reply) { e.reply.Store(&reply) }

// BaseURL is the address to configure.
func (e *Endpoint) BaseURL() string { return e.URL + "/v1" }

// Calls is how many chat completions were asked for.
func (e *Endpoint) Calls() int { return int(e.calls.Load()) }

// Lists is how often the models were asked for.
func (e *Endpoint) Lists() int { return int(e.lists.Load()) }

// MostInFlight is the most calls that were under way at one time.
func (e *Endpoint) MostInFlight() int { return int(e.mostSeen.Load()) }

// Says answers every call with one text.
func Says(text string) func(Call) Reply {
	return func(Call) Reply { return Reply{Text: text} }
}

// Fails answers every call with a status.
func Fails(status int, message string) func(Call) Reply {
	return func(Call) Reply { return Reply{Status: status, Text: message} }
}

// ServeHTTP implements http.Handler. Models are listed as the calls are answered,
// as far as statuses go.
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasSuffix(r.URL.Path, "/models"):
		e.lists.Add(1)
		reply := (*e.reply.Load())(Call{Header: r.Header})
		if reply.Status != 0 && reply.Status != http.StatusOK {
			fail(w, reply)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"object":"list","data":[]}`)
	case strings.HasSuffix(r.URL.Path, "/chat/completions"):
		now := e.inFlight.Add(1)
		defer e.inFlight.Add(-1)
		for seen := e.mostSeen.Load(); now > seen && !e.mostSeen.CompareAndSwap(seen, now); seen = e.mostSeen.Load() {
		}
		e.complete(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (e *Endpoint) complete(w http.ResponseWriter, r *http.Request) {
	call := Call{Number: int(e.calls.Add(1)), Header: r.Header}
	var parsed struct {
		Model          string
		Messages       []struct{ Role, Content string }
		ResponseFormat struct {
			JSONSchema struct{ Schema json.RawMessage } `json:"json_schema"`
		} `json:"response_format"`
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(body, &parsed) != nil || json.Unmarshal(body, &call.Body) != nil || len(parsed.Messages) != 2 {
		http.Error(w, "the double wants JSON with a system and a user message", http.StatusBadRequest)
		return
	}
	call.Model, call.Schema = parsed.Model, parsed.ResponseFormat.JSONSchema.Schema
	call.System, call.User = parsed.Messages[0].Content, parsed.Messages[1].Content
	reply := (*e.reply.Load())(call)
	if reply.Latency > 0 {
		timer := time.NewTimer(reply.Latency)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return
		case <-e.closed:
			return
		}
	}
	switch {
	case reply.Abort:
		panic(http.ErrAbortHandler)
	case reply.Raw != nil:
		w.Header().Set("Content-Type", "application/json")
		if reply.ContentType != "" {
			w.Header().Set("Content-Type", reply.ContentType)
		}
		if reply.Status != 0 {
			w.WriteHeader(reply.Status)
		}
		_, _ = io.Copy(w, reply.Raw)
	case reply.Status != 0 && reply.Status != http.StatusOK:
		fail(w, reply)
	default:
		say(w, call, reply)
	}
}

func fail(w http.ResponseWriter, reply Reply) {
	for name, values := range reply.Header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(reply.Status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"message": reply.Text, "code": reply.Status}})
}

func say(w http.ResponseWriter, call Call, reply Reply) {
	finish := reply.FinishReason
	if finish == "" {
		finish = "stop"
	}
	body := map[string]any{
		"id": "chatcmpl-1", "object": "chat.completion", "model": call.Model,
		"choices": []any{map[string]any{"index": 0, "finish_reason": finish, "message": map[string]any{"role": "assistant", "content": reply.Text}}},
	}
	if !reply.NoUsage {
		prompt, completion := reply.PromptTokens, reply.CompletionTokens
		if prompt+completion == 0 {
			prompt = len(strings.Fields(call.System)) + len(strings.Fields(call.User))
			completion = len(strings.Fields(reply.Text))
		}
		body["usage"] = map[string]any{"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
	}
	for name, values := range reply.Header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body)
}

// Transport reaches endpoints without a network, by host name, so that a test may
// run in a testing/synctest bubble, where sleeping costs no time. Use
// http://NAME/v1 as the base address; other names refuse the connection.
type Transport map[string]*Endpoint

// Unconnected is an endpoint for a Transport.
func Unconnected(t testing.TB, reply func(Call) Reply) *Endpoint {
	t.Helper()
	return unstarted(reply)
}

// RoundTrip implements http.RoundTripper.
func (t Transport) RoundTrip(r *http.Request) (response *http.Response, err error) {
	endpoint := t[r.URL.Host]
	if endpoint == nil {
		return nil, errRefused
	}
	recorder := httptest.NewRecorder()
	defer func() {
		if recover() != nil { // Reply.Abort
			response, err = nil, io.ErrUnexpectedEOF
		}
	}()
	if r.Body == nil {
		r.Body = http.NoBody
	}
	endpoint.ServeHTTP(recorder, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	result := recorder.Result()
	result.Request = r
	result.Body = io.NopCloser(bytes.NewReader(recorder.Body.Bytes()))
	return result, nil
}

var errRefused = errors.New("connection refused")
