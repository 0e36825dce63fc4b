package judge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/shared"
)

// Request is what a judge is asked.
type Request struct {
	System, User string
	// Schema is the JSON schema of the answer, for endpoints that can be held to
	// one; nil for free text. Its order of properties is kept.
	Schema json.RawMessage
}

// Answer is what a judge answered.
type Answer struct {
	Text     string
	Model    string // as the endpoint names it
	Endpoint string // address, without user and query
	// The cost. Where the endpoint does not tell it is estimated at four bytes a
	// token, and Estimated is true.
	PromptTokens, CompletionTokens int
	Estimated                      bool
	Took                           time.Duration // of the request that was answered
}

var (
	errTooLarge = errors.New("answer is larger than max_answer_bytes")
	errSlow     = errors.New("no answer in time")
	errLeft     = errors.New("the caller no longer waits")
)

// refusal is an answer other than 2xx.
type refusal struct {
	status  int
	code    string        // the API's own, such as insufficient_quota
	param   string        // the parameter that the API blames
	message string        // one line, shortened
	after   time.Duration // what Retry-After asks for, 0 for nothing
}

func (r *refusal) Error() string {
	if r.message == "" {
		return fmt.Sprintf("status %d", r.status)
	}
	return fmt.Sprintf("status %d: %s", r.status, r.message)
}

// newClient makes the options of one endpoint. The services are made from them
// directly: openai.NewClient would read OPENAI_* variables and send their
// credentials to whatever endpoint is configured.
func newClient(base *url.URL, transport http.RoundTripper, limit int64) []option.RequestOption {
	query := base.Query()
	plain := *base
	plain.RawQuery, plain.Fragment = "", ""
	options := []option.RequestOption{
		option.WithBaseURL(plain.String()),
		option.WithHTTPClient(&http.Client{Transport: transport}),
		option.WithMaxRetries(0), // the pool retries, maybe elsewhere
		option.WithMiddleware(bounded(limit)),
	}
	for name, values := range query { // which the client would lose
		for _, v := range values {
			options = append(options, option.WithQueryAdd(name, v))
		}
	}
	return options
}

// exchange is one request to the endpoint in the given dialect.
func (e *endpoint) exchange(ctx context.Context, c Config, req Request, d dialect) (Answer, error) {
	key, err := e.key.read()
	if err != nil {
		return Answer{}, &misconfigured{err, e.key.advice()}
	}
	params := openai.ChatCompletionNewParams{
		Model:    e.model,
		Messages: []openai.ChatCompletionMessageParamUnion{openai.SystemMessage(req.System), openai.UserMessage(req.User)},
	}
	if d.newTokenLimit {
		params.MaxCompletionTokens = openai.Int(int64(c.MaxTokens))
	} else {
		params.MaxTokens = openai.Int(int64(c.MaxTokens)) // the name that every local server knows
	}
	if !d.ownTemperature {
		params.Temperature = openai.Float(c.Temperature)
	}
	if e.extra != nil {
		params.SetExtraFields(e.extra)
	}
	if req.Schema != nil {
		params.ResponseFormat = d.format.of(req.Schema)
	}
	limited, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	begun := e.now()
	completion, err := e.chat.New(limited, params, withKey(key)...)
	took := e.now().Sub(begun)
	if err != nil {
		return Answer{}, explain(ctx, limited, c.Timeout, key, err)
	}
	answer := Answer{Model: completion.Model[:min(len(completion.Model), 200)], Endpoint: e.name, Took: took}
	answer.PromptTokens, answer.CompletionTokens, answer.Estimated = usage(completion, req)
	if len(completion.Choices) == 0 {
		return answer, fmt.Errorf("answer without choices: %w", ErrUnusable)
	}
	choice := completion.Choices[0]
	answer.Text = choice.Message.Content
	switch {
	case answer.Text != "":
		return answer, nil
	case choice.Message.Refusal != "":
		return answer, fmt.Errorf("the model refuses to answer: %w", ErrUnusable)
	case choice.FinishReason == "length":
		return answer, fmt.Errorf("nothing was said within max_tokens (%d), perhaps all of it was thought: %w", c.MaxTokens, ErrUnusable)
	}
	return answer, fmt.Errorf("answer is empty: %w", ErrUnusable)
}

// of is the parameter that holds an endpoint to a schema.
func (f format) of(schema json.RawMessage) (p openai.ChatCompletionNewParamsResponseFormatUnion) {
	switch f {
	case formatSchema:
		p.OfJSONSchema = &shared.ResponseFormatJSONSchemaParam{
			JSONSchema: shared.ResponseFormatJSONSchemaJSONSchemaParam{Name: "verdict", Schema: schema, Strict: openai.Bool(true)},
		}
	case formatObject:
		p.OfJSONObject = &shared.ResponseFormatJSONObjectParam{}
		p.OfJSONObject.SetExtraFields(map[string]any{"schema": schema})
	case formatFree:
	}
	return p
}

// list asks for the models, to see whether the endpoint is there.
func (e *endpoint) list(ctx context.Context, c Config) error {
	key, err := e.key.read()
	if err != nil {
		return &misconfigured{err, e.key.advice()}
	}
	limited, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	if _, err = e.models.List(limited, withKey(key)...); err != nil {
		return explain(ctx, limited, c.Timeout, key, err)
	}
	return nil
}

func withKey(key string) []option.RequestOption {
	if key == "" {
		return nil
	}
	return []option.RequestOption{option.WithAPIKey(key)}
}

// explain says why there is no answer; neither the address nor the key is in it.
func explain(ctx, limited context.Context, timeout time.Duration, key string, err error) error {
	var refused *refusal
	var wrapped *url.Error
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", errLeft, context.Cause(ctx))
	case errors.Is(err, errTooLarge):
		return fmt.Errorf("%w: %w", errTooLarge, ErrUnusable)
	case limited.Err() != nil:
		return fmt.Errorf("%w (%v)", errSlow, timeout)
	case errors.As(err, &refused):
		if key != "" {
			refused.message = strings.ReplaceAll(refused.message, key, "(the key)")
		}
		return refused
	case errors.As(err, &wrapped):
		return wrapped.Err
	}
	return err
}

// bounded keeps what an endpoint sends within limits, and turns an answer other
// than 2xx into a refusal.
func bounded(limit int64) option.Middleware {
	return func(request *http.Request, next option.MiddlewareNext) (*http.Response, error) {
		response, err := next(request)
		if err != nil {
			return nil, err
		}
		if response.StatusCode/100 != 2 {
			defer func() { _ = response.Body.Close() }()
			return nil, newRefusal(response)
		}
		response.Body = &boundedBody{ReadCloser: response.Body, left: limit}
		return response, nil
	}
}

// boundedBody ends with errTooLarge when more than left bytes come.
type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if int64(n) > b.left {
		return int(b.left), errTooLarge
	}
	b.left -= int64(n)
	return n, err
}

// newRefusal reads the little that is worth reading of an error. Servers nest
// the message in different ways; where it is not found the body is shown.
func newRefusal(response *http.Response) *refusal {
	const enough, shown = 8 << 10, 300
	data, err := io.ReadAll(io.LimitReader(response.Body, enough))
	if err != nil {
		data = nil // the status says enough
	}
	r := &refusal{status: response.StatusCode, after: retryAfter(response.Header)}
	var body struct {
		Error struct {
			Message string `json:"message"`
			Param   any    `json:"param"`
			Code    any    `json:"code"` // some servers repeat the status here, as a number
		} `json:"error"`
	}
	text := string(data)
	if json.Unmarshal(data, &body) == nil && body.Error.Message != "" {
		text = body.Error.Message
		r.code, _ = body.Error.Code.(string)
		r.param, _ = body.Error.Param.(string)
	}
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if utf8.RuneCountInString(text) > shown {
		text = string([]rune(text)[:shown]) + "..."
	}
	r.message = text
	return r
}

// retryAfter reads what the endpoint asks for (RFC 9110, 10.2.3, and the
// millisecond header of OpenAI's servers), up to an hour.
func retryAfter(h http.Header) time.Duration {
	for _, k := range []struct {
		header string
		unit   time.Duration
	}{{"Retry-After-Ms", time.Millisecond}, {"Retry-After", time.Second}} {
		n, err := strconv.ParseFloat(h.Get(k.header), 64)
		if err == nil && n > 0 {
			return time.Duration(min(n*float64(k.unit), float64(time.Hour)))
		}
	}
	if at, err := http.ParseTime(h.Get("Retry-After")); err == nil {
		if sent, err := http.ParseTime(h.Get("Date")); err == nil { // both by the endpoint's clock
			return min(max(0, at.Sub(sent)), time.Hour)
		}
	}
	return 0
}

// usage gives the tokens that the endpoint counted, unless it counted none or
// more than the texts can have.
func usage(completion *openai.ChatCompletion, req Request) (prompt, answer int, estimated bool) {
	const room = 4096 // for chat templates; and thought, which is counted but not sent
	most := len(req.System) + len(req.User) + len(req.Schema) + room
	u := completion.Usage
	if u.PromptTokens > 0 && u.PromptTokens <= int64(most) && u.CompletionTokens >= 0 && u.CompletionTokens <= 1<<20 {
		return int(u.PromptTokens), int(u.CompletionTokens), false
	}
	said := 0
	for _, c := range completion.Choices {
		said += len(c.Message.Content)
	}
	return promptTokens(req), said/4 + 1, true
}

// promptTokens estimates the tokens of a prompt at four bytes each.
func promptTokens(req Request) int { return (len(req.System)+len(req.User))/4 + 8 }
