package judge_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/rewardsrv/judge"
	"github.com/forager-rl/forager/rewardsrv/judge/judgetest"
)

// log keeps lines for tests to look at.
type log struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.String()
}

// newPool makes a pool over addresses with a log that the test can read.
func newPool(t testing.TB, change func(*judge.Config, *judge.Deps), addresses ...string) (*judge.Pool, *log) {
	t.Helper()
	lines := &log{}
	config := judge.DefaultConfig()
	config.Model, config.Retries, config.Timeout = "m", 0, 5*time.Second
	for _, a := range addresses {
		config.Endpoints = append(config.Endpoints, judge.EndpointConfig{BaseURL: a})
	}
	deps := judge.Deps{Logger: slog.New(slog.NewTextHandler(lines, nil)), Now: time.Now, Random: rand.New(rand.NewPCG(1, 2))}
	if change != nil {
		change(&config, &deps)
	}
	pool, err := judge.New(config, deps)
	if err != nil {
		t.Fatal(err)
	}
	return pool, lines
}

var question = judge.Request{System: "You judge.", User: "Is it helpful?"}

func TestAsk(t *testing.T) {
	e := judgetest.New(t, func(c judgetest.Call) judgetest.Reply {
		return judgetest.Reply{Text: c.System + "|" + c.User + "|" + string(c.Body["max_tokens"]) + "|" + string(c.Body["temperature"])}
	})
	pool, _ := newPool(t, func(c *judge.Config, _ *judge.Deps) { c.Temperature = 0.5 }, e.BaseURL())
	got, err := pool.Ask(t.Context(), question)
	if err != nil || got.Text != "You judge.|Is it helpful?|256|0.5" || got.Model != "m" || got.Endpoint != e.BaseURL() || got.PromptTokens != 5 || got.Estimated || got.Took <= 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if err := pool.Check(t.Context()); err != nil {
		t.Errorf("check: %v", err)
	}
}

// TestFailures: each failure is blamed on the right party and asked about once.
func TestFailures(t *testing.T) {
	text := func(s string) func(judgetest.Call) judgetest.Reply {
		return func(judgetest.Call) judgetest.Reply { return judgetest.Reply{Raw: strings.NewReader(s)} }
	}
	for name, c := range map[string]struct {
		reply func(judgetest.Call) judgetest.Reply
		want  error // nil: neither
		says  string
	}{
		"400":          {judgetest.Fails(400, "prompt is too long"), judge.ErrUnusable, "prompt is too long"},
		"413":          {judgetest.Fails(413, ""), judge.ErrUnusable, "413"},
		"500":          {judgetest.Fails(500, "out of memory"), nil, "out of memory"},
		"429":          {judgetest.Fails(429, "slow down"), judge.ErrUnavailable, "slow down"},
		"404":          {judgetest.Fails(404, "no such model"), judge.ErrUnavailable, "no such model"},
		"no choices":   {text(`{}`), judge.ErrUnusable, "without choices"},
		"empty":        {judgetest.Says(""), judge.ErrUnusable, "empty"},
		"only thought": {func(judgetest.Call) judgetest.Reply { return judgetest.Reply{FinishReason: "length"} }, judge.ErrUnusable, "max_tokens (256)"},
		"slow":         {func(judgetest.Call) judgetest.Reply { return judgetest.Reply{Latency: judgetest.Never} }, nil, "no answer in time (300ms)"},
		"aborted":      {func(judgetest.Call) judgetest.Reply { return judgetest.Reply{Abort: true} }, nil, "EOF"},
		"cut off":      {text(`{"choices":[`), nil, "EOF"},
		"a web page": {func(judgetest.Call) judgetest.Reply {
			return judgetest.Reply{Raw: strings.NewReader("<html>"), ContentType: "text/html"}
		}, nil, "text/html"},
		"error page": {func(judgetest.Call) judgetest.Reply {
			return judgetest.Reply{Status: 502, Raw: strings.NewReader("<html>\n bad gateway"), ContentType: "text/html"}
		}, nil, "<html> bad gateway"},
	} {
		t.Run(name, func(t *testing.T) {
			e := judgetest.New(t, c.reply)
			pool, _ := newPool(t, func(c *judge.Config, _ *judge.Deps) { c.Timeout = 300 * time.Millisecond }, e.BaseURL())
			_, err := pool.Ask(t.Context(), question)
			unusable, unavailable := errors.Is(err, judge.ErrUnusable), errors.Is(err, judge.ErrUnavailable)
			if err == nil || c.want != nil && !errors.Is(err, c.want) || c.want == nil && (unusable || unavailable) || unusable && unavailable {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q does not say %q", err, c.says)
			}
			if e.Calls() != 1 {
				t.Errorf("%d calls without retries", e.Calls())
			}
		})
	}
}

// TestHugeAnswers: 10 MB, announced or not, as answer, error or header, are cut
// off while they are read and do not fill memory.
func TestHugeAnswers(t *testing.T) {
	const size = 10 << 20
	block := bytes.Repeat([]byte("x"), 64<<10)
	huge := func() io.Reader { return &repeated{block: block, left: size} }
	for name, c := range map[string]struct {
		reply func(judgetest.Call) judgetest.Reply
		want  error
	}{
		"answer": {func(judgetest.Call) judgetest.Reply { return judgetest.Reply{Raw: huge()} }, judge.ErrUnusable},
		"error":  {func(judgetest.Call) judgetest.Reply { return judgetest.Reply{Status: 400, Raw: huge()} }, judge.ErrUnusable},
		"header": {func(judgetest.Call) judgetest.Reply {
			return judgetest.Reply{Text: "x", Header: http.Header{"X-Big": {strings.Repeat("x", 200<<10)}}}
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			e := judgetest.New(t, c.reply)
			pool, _ := newPool(t, nil, e.BaseURL())
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := pool.Ask(t.Context(), question)
			runtime.ReadMemStats(&after)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 2<<20 {
				t.Errorf("allocated %d bytes", grown)
			}
			if got := pool.Stats()[0]; got.InFlight != 0 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// repeated gives a block again and again.
type repeated struct {
	block []byte
	left  int
}

func (r *repeated) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, io.EOF
	}
	n := copy(p, r.block)
	r.left -= n
	return n, nil
}

// TestKeys: a key comes from the configured place and from nowhere else, and goes
// to its own endpoint alone.
func TestKeys(t *testing.T) {
	t.Setenv("OPENAI_API_KEY", "not-for-this-endpoint")
	t.Setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/")
	t.Setenv("JUDGE_KEY", "from-env")
	echo := func(c judgetest.Call) judgetest.Reply {
		return judgetest.Reply{Text: "key " + c.Header.Get("Authorization")}
	}
	file := filepath.Join(t.TempDir(), "key")
	writeKey(t, file, "one")
	for name, c := range map[string]struct {
		endpoint judge.EndpointConfig
		want     string
	}{
		"none":        {judge.EndpointConfig{}, "key "},
		"environment": {judge.EndpointConfig{APIKeyEnv: "JUDGE_KEY"}, "key Bearer from-env"},
		"unset":       {judge.EndpointConfig{APIKeyEnv: "JUDGE_KEY_UNSET"}, "key "},
		"file":        {judge.EndpointConfig{APIKeyEnv: "JUDGE_KEY", APIKeyFile: file}, "key Bearer one"},
	} {
		e := judgetest.New(t, echo)
		pool, _ := newPool(t, func(config *judge.Config, _ *judge.Deps) {
			c.endpoint.BaseURL = e.BaseURL()
			config.Endpoints = []judge.EndpointConfig{c.endpoint}
		})
		if got, err := pool.Ask(t.Context(), question); err != nil || got.Text != c.want {
			t.Errorf("%s: %q, %v", name, got.Text, err)
		}
		if name == "file" { // rotated
			writeKey(t, file, "two")
			if got, err := pool.Ask(t.Context(), question); err != nil || got.Text != "key Bearer two" {
				t.Errorf("rotated: %q, %v", got.Text, err)
			}
		}
	}
}

func writeKey(t *testing.T, file, key string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestSecrets: neither key nor user nor query are in errors, logs, statistics or
// metrics, though the endpoint repeats them.
func TestSecrets(t *testing.T) {
	t.Setenv("JUDGE_KEY", "sk-very-secret")
	var seen string
	e := judgetest.New(t, func(c judgetest.Call) judgetest.Reply {
		return judgetest.Reply{Status: http.StatusUnauthorized, Text: "wrong key sk-very-secret"}
	})
	e.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.URL.RawQuery
		e.ServeHTTP(w, r)
	})
	registry := prometheus.NewRegistry()
	pool, lines := newPool(t, func(c *judge.Config, d *judge.Deps) {
		base := strings.Replace(e.BaseURL(), "http://", "http://user-secret:pass-secret@", 1) + "?token=query-secret"
		c.Endpoints = []judge.EndpointConfig{{BaseURL: base, APIKeyEnv: "JUDGE_KEY"}}
		d.Registerer = registry
	})
	_, err := pool.Ask(t.Context(), question)
	if err == nil || !strings.Contains(err.Error(), "wrong key (the key)") {
		t.Errorf("ask: %v", err)
	}
	if seen != "token=query-secret" {
		t.Errorf("the endpoint got the query %q", seen)
	}
	stats, _ := json.Marshal(pool.Stats())
	families, _ := registry.Gather()
	all := lines.String() + string(stats) + err.Error()
	for _, f := range families {
		all += f.String()
	}
	if check := pool.Check(t.Context()); check != nil {
		all += check.Error()
	}
	e.Close()
	if _, err := pool.Ask(t.Context(), question); err != nil {
		all += err.Error()
	}
	if strings.Contains(strings.ReplaceAll(all, "wrong key sk-", ""), "secret") {
		t.Errorf("a secret shows in %s", all)
	}
}

// TestWrongKey: one clear error however many labels are asked for, no further
// request, and the key's setting is named.
func TestWrongKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	writeKey(t, file, "wrong")
	e := judgetest.New(t, judgetest.Fails(http.StatusUnauthorized, "invalid key"))
	pool, lines := newPool(t, func(c *judge.Config, _ *judge.Deps) {
		c.Endpoints = []judge.EndpointConfig{{BaseURL: e.BaseURL(), APIKeyFile: file}}
		c.Retries = 3
	})
	for range 100 {
		_, err := pool.Ask(t.Context(), question)
		if wait, ok := judge.RetryAfter(err); !ok || wait <= 0 {
			t.Fatalf("got %v", err)
		}
	}
	if e.Calls() != 1 || strings.Count(lines.String(), "\n") != 1 || !strings.Contains(lines.String(), file+" (api_key_file)") {
		t.Errorf("%d calls and these lines:\n%s", e.Calls(), lines)
	}
	if got := pool.Stats()[0]; got.State != "aside" || pool.Capacity() != 0 {
		t.Errorf("%+v, capacity %d", got, pool.Capacity())
	}
}

// TestCheck: what is wrong at the start is said once, with the next step.
func TestCheck(t *testing.T) {
	dead := judgetest.New(t, judgetest.Says("x"))
	dead.Close()
	locked := judgetest.New(t, judgetest.Fails(http.StatusForbidden, "no"))
	well := judgetest.New(t, judgetest.Says("x"))
	shy := judgetest.New(t, judgetest.Fails(http.StatusNotFound, "lists no models"))
	pool, lines := newPool(t, nil, dead.BaseURL(), locked.BaseURL(), well.BaseURL(), shy.BaseURL())
	err := pool.Check(t.Context())
	var hint *forager.HintError
	if err == nil || !errors.As(err, &hint) {
		t.Fatalf("got %v, want a hint", err)
	}
	for address, wanted := range map[string]bool{dead.BaseURL(): true, locked.BaseURL(): true, well.BaseURL(): false, shy.BaseURL(): false} {
		if strings.Contains(err.Error(), address) != wanted {
			t.Errorf("%s named: %v, in %v", address, !wanted, err)
		}
	}
	for range 10 {
		_, _ = pool.Ask(t.Context(), question)
	}
	if locked.Calls() != 0 || strings.Contains(lines.String(), locked.BaseURL()) {
		t.Errorf("%d calls after the key was refused:\n%s", locked.Calls(), lines)
	}
}

// TestStructuredOutput: a schema is sent as it is, a refusal is remembered when
// doing without it works, and other refusals are not taken for one.
func TestStructuredOutput(t *testing.T) {
	schema := json.RawMessage(`{"type":"object","properties":{"reason":{"type":"string"},"label":{"enum":["A","B"]}},"required":["reason","label"],"additionalProperties":false}`)
	req := question
	req.Schema = schema
	answer := func(c judgetest.Call) judgetest.Reply {
		return judgetest.Reply{Text: "schema " + string(c.Schema)}
	}
	const object = `{"reason":"because","label":"A"}`
	objects := func(text string) func(judgetest.Call) judgetest.Reply { // as llama-cpp-python's server
		return func(c judgetest.Call) judgetest.Reply {
			switch format := string(c.Body["response_format"]); {
			case strings.Contains(format, "json_schema"):
				return judgetest.Reply{Status: 500, Text: "[{'loc': ('body', 'response_format', 'type')}]"}
			case strings.Contains(format, "json_object") && strings.Contains(format, string(schema)):
				return judgetest.Reply{Text: text}
			}
			return judgetest.Reply{Text: "free"}
		}
	}
	refuse := func(status int, message string) func(judgetest.Call) judgetest.Reply {
		return func(c judgetest.Call) judgetest.Reply {
			if c.Body["response_format"] != nil {
				return judgetest.Reply{Status: status, Text: message}
			}
			return answer(c)
		}
	}
	for name, c := range map[string]struct {
		mode  string
		reply func(judgetest.Call) judgetest.Reply
		want  string // "" for an error
		calls int    // of two requests
	}{
		"offered":          {judge.StructuredAuto, answer, "schema " + string(schema), 2},
		"off":              {judge.StructuredOff, answer, "schema ", 2},
		"refused with 400": {judge.StructuredAuto, refuse(400, "'response_format.type' must be 'text'"), "schema ", 4},
		"refused with 500": {judge.StructuredAuto, refuse(500, "[{'type': 'literal_error', 'loc': ('body', 'response_format', 'type')}]"), "schema ", 4},
		"as an object":     {judge.StructuredAuto, objects(object), object, 3},
		"on as an object":  {judge.StructuredOn, objects(object), object, 3},
		"schema ignored":   {judge.StructuredAuto, objects(`{"answer":1}`), "free", 4},
		"on and refused":   {judge.StructuredOn, refuse(400, "no response_format here"), "", 4},
		"something else":   {judge.StructuredAuto, refuse(400, "too long"), "", 2},
		"always refused":   {judge.StructuredAuto, judgetest.Fails(400, "bad input: {response_format: ...}"), "", 6},
	} {
		t.Run(name, func(t *testing.T) {
			e := judgetest.New(t, c.reply)
			pool, _ := newPool(t, func(config *judge.Config, _ *judge.Deps) { config.StructuredOutput = c.mode }, e.BaseURL())
			for range 2 {
				got, err := pool.Ask(t.Context(), req)
				if (err != nil) != (c.want == "") || got.Text != c.want {
					t.Errorf("%q, %v", got.Text, err)
				}
			}
			if e.Calls() != c.calls {
				t.Errorf("%d calls, want %d", e.Calls(), c.calls)
			}
		})
	}
}

// TestHostedDialect: models of hosted endpoints that refuse max_tokens and a
// temperature are asked in their own words from then on.
func TestHostedDialect(t *testing.T) {
	e := judgetest.New(t, func(c judgetest.Call) judgetest.Reply {
		for _, name := range []string{"max_tokens", "temperature"} {
			if c.Body[name] != nil {
				return judgetest.Reply{Status: 400, Raw: strings.NewReader(`{"error":{"message":"Unsupported: '` + name + `'","param":"` + name + `","code":"unsupported_parameter"}}`)}
			}
		}
		return judgetest.Reply{Text: string(c.Body["max_completion_tokens"])}
	})
	pool, _ := newPool(t, nil, e.BaseURL())
	for range 2 {
		if got, err := pool.Ask(t.Context(), question); err != nil || got.Text != "256" {
			t.Errorf("%q, %v", got.Text, err)
		}
	}
	if e.Calls() != 4 {
		t.Errorf("%d calls, want 3 to learn and 1 after", e.Calls())
	}
}

// TestExtraBody: a server's own options go along as they are.
func TestExtraBody(t *testing.T) {
	e := judgetest.New(t, func(c judgetest.Call) judgetest.Reply {
		return judgetest.Reply{Text: string(c.Body["chat_template_kwargs"]) + string(c.Body["model"]) + string(c.Body["max_tokens"])}
	})
	pool, _ := newPool(t, func(c *judge.Config, _ *judge.Deps) {
		c.Endpoints[0].ExtraBody = `{"chat_template_kwargs": {"enable_thinking": false}}`
	}, e.BaseURL())
	if got, err := pool.Ask(t.Context(), question); err != nil || got.Text != `{"enable_thinking":false}"m"256` {
		t.Errorf("%q, %v", got.Text, err)
	}
}

// TestUsage: what the endpoint counts is believed unless it is impossible.
func TestUsage(t *testing.T) {
	for name, c := range map[string]struct {
		reply     judgetest.Reply
		prompt    int
		estimated bool
	}{
		"counted":    {judgetest.Reply{Text: "yes", PromptTokens: 40, CompletionTokens: 2}, 40, false},
		"silent":     {judgetest.Reply{Text: "yes", NoUsage: true}, 14, true},
		"impossible": {judgetest.Reply{Text: "yes", PromptTokens: 1 << 40, CompletionTokens: 2}, 14, true},
		"negative":   {judgetest.Reply{Text: "yes", PromptTokens: -5, CompletionTokens: -5}, 14, true},
	} {
		e := judgetest.New(t, func(judgetest.Call) judgetest.Reply { return c.reply })
		pool, _ := newPool(t, nil, e.BaseURL())
		got, err := pool.Ask(t.Context(), question)
		if err != nil || got.PromptTokens != c.prompt || got.Estimated != c.estimated {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// TestRefusesEverything: an endpoint that never answered is blamed after some
// refusals; one that did answer never is.
func TestRefusesEverything(t *testing.T) {
	e := judgetest.New(t, judgetest.Fails(400, "unknown field"))
	pool, lines := newPool(t, nil, e.BaseURL())
	unusable := 0
	for range 20 {
		if _, err := pool.Ask(t.Context(), question); errors.Is(err, judge.ErrUnusable) {
			unusable++
		}
	}
	if unusable != 5 || e.Calls() != 5 || strings.Count(lines.String(), "\n") != 1 || !strings.Contains(lines.String(), "unknown field") {
		t.Errorf("%d requests blamed, %d calls:\n%s", unusable, e.Calls(), lines)
	}

	e = judgetest.New(t, judgetest.Says("yes"))
	pool, _ = newPool(t, nil, e.BaseURL())
	if _, err := pool.Ask(t.Context(), question); err != nil {
		t.Fatal(err)
	}
	e.Answer(judgetest.Fails(400, "too long"))
	for range 20 {
		if _, err := pool.Ask(t.Context(), question); !errors.Is(err, judge.ErrUnusable) {
			t.Fatal(err)
		}
	}

	// A text that is found improper does not set the endpoint aside; a key that no
	// longer counts does.
	e.Answer(func(c judgetest.Call) judgetest.Reply {
		if c.User == "improper" {
			return judgetest.Reply{Status: http.StatusForbidden, Text: "flagged"}
		}
		return judgetest.Reply{Text: "yes"}
	})
	for range 20 {
		if _, err := pool.Ask(t.Context(), judge.Request{User: "improper"}); !errors.Is(err, judge.ErrUnusable) {
			t.Fatal(err)
		}
		if _, err := pool.Ask(t.Context(), question); err != nil {
			t.Fatal(err)
		}
	}
	e.Answer(judgetest.Fails(http.StatusForbidden, "revoked"))
	before := e.Calls()
	for range 20 {
		_, _ = pool.Ask(t.Context(), question)
	}
	if n := e.Calls() - before; n != 5 || pool.Stats()[0].State != "aside" {
		t.Errorf("%d calls with a revoked key, %+v", n, pool.Stats()[0])
	}
}

func TestConfigValidate(t *testing.T) {
	good := judge.DefaultConfig()
	good.Model, good.Endpoints = "m", []judge.EndpointConfig{{BaseURL: "http://127.0.0.1:8000/v1"}}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*judge.Config){
		"model":             func(c *judge.Config) { c.Model = "" },
		"endpoints":         func(c *judge.Config) { c.Endpoints = nil },
		"base_url":          func(c *judge.Config) { c.Endpoints = []judge.EndpointConfig{{BaseURL: "localhost:8000"}} },
		"twice":             func(c *judge.Config) { c.Endpoints = append(c.Endpoints, c.Endpoints[0]) },
		"temperature":       func(c *judge.Config) { c.Temperature = 2.5 },
		"max_tokens":        func(c *judge.Config) { c.MaxTokens = 1 },
		"max_answer_bytes":  func(c *judge.Config) { c.MaxAnswerBytes = 0 },
		"extra_body of":     func(c *judge.Config) { c.Endpoints[0].ExtraBody = "[]" },
		"stream is not set": func(c *judge.Config) { c.Endpoints[0].ExtraBody = `{"stream": true}` },
		"structured_output": func(c *judge.Config) { c.StructuredOutput = "yes" },
		"timeout":           func(c *judge.Config) { c.Timeout = 0 },
		"retries":           func(c *judge.Config) { c.Retries = 11 },
		"min_in_flight":     func(c *judge.Config) { c.MinInFlight = 0 },
		"max_in_flight":     func(c *judge.Config) { c.MinInFlight, c.MaxInFlight = 5, 4 },
		"requests_per_hour": func(c *judge.Config) { c.RequestsPerHour = 10 },
		"tokens_per_hour":   func(c *judge.Config) { c.TokensPerHour = 1000 },
		"breaker_failures":  func(c *judge.Config) { c.BreakerFailures = 0 },
		"breaker_pause":     func(c *judge.Config) { c.BreakerPause = 0 },
	} {
		c := good
		c.Endpoints = slices.Clone(good.Endpoints)
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	bad := good
	bad.Endpoints = []judge.EndpointConfig{{BaseURL: "ftp://user:pass-secret@host"}}
	if err := bad.Validate(); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
}

// TestCancelled: a caller that leaves gives its place back and blames nobody.
func TestCancelled(t *testing.T) {
	e := judgetest.New(t, func(judgetest.Call) judgetest.Reply { return judgetest.Reply{Latency: judgetest.Never} })
	pool, _ := newPool(t, func(c *judge.Config, _ *judge.Deps) { c.MinInFlight, c.MaxInFlight = 1, 1 }, e.BaseURL())
	ctx, cancel := context.WithCancelCause(t.Context())
	left := errors.New("enough")
	var all sync.WaitGroup
	for range 3 { // one is served, two wait for its place
		all.Go(func() {
			if _, err := pool.Ask(ctx, question); !errors.Is(err, left) {
				t.Errorf("got %v", err)
			}
		})
	}
	for e.Calls() == 0 {
		runtime.Gosched()
	}
	cancel(left)
	all.Wait()
	if got := pool.Stats()[0]; got.InFlight != 0 || got.State != "ok" || got.Limit != 1 {
		t.Errorf("%+v", got)
	}
}
