package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxAnswer bounds the size of an answer.
const maxAnswer = 64 << 20

// statusError is an answer other than 200.
type statusError struct {
	code  int
	text  string        // of the body, shortened
	after time.Duration // what Retry-After asked for
}

func (e *statusError) Error() string {
	if e.text == "" {
		return fmt.Sprintf("answered %d %s", e.code, http.StatusText(e.code))
	}
	return fmt.Sprintf("answered %d: %s", e.code, e.text)
}

// errBroken is an exchange without a whole answer: the server is gone, slow or
// died in the middle.
var errBroken = errors.New("no answer")

// errAborted means that the server gave up a completion of its own accord.
var errAborted = errors.New("the server aborted the completion")

// errNotLoaded means that the server does not have the weights that were asked
// for, though it was given them: it was restarted, say.
var errNotLoaded = errors.New("the server lost its weights")

// again tells whether an error is worth another attempt, and how long the
// server asked to be left alone.
func again(err error) (bool, time.Duration) {
	var status *statusError
	switch {
	case errors.Is(err, errBroken), errors.Is(err, errAborted), errors.Is(err, errNotLoaded):
		return true, 0
	case errors.As(err, &status):
		return status.code == http.StatusTooManyRequests || status.code >= 500, status.after
	}
	return false, 0
}

// saturated tells a server that is busy from one that is ill.
func saturated(err error) bool {
	var status *statusError
	return errors.As(err, &status) && (status.code == http.StatusTooManyRequests || status.code == http.StatusServiceUnavailable)
}

// rejected tells whether the server answered with this status.
func rejected(err error, code int) bool {
	var status *statusError
	return errors.As(err, &status) && status.code == code
}

// get asks for JSON.
func (e *endpoint) get(ctx context.Context, path string, answer any) error {
	return e.exchange(ctx, http.MethodGet, path, nil, decodeInto(answer))
}

// post sends JSON and reads JSON; an answer of nil is not read.
func (e *endpoint) post(ctx context.Context, path string, body, answer any) error {
	return e.exchange(ctx, http.MethodPost, path, body, decodeInto(answer))
}

func decodeInto(answer any) func(io.Reader) error {
	return func(r io.Reader) error {
		data, err := io.ReadAll(r)
		if err != nil {
			return fmt.Errorf("%w: the answer broke off: %w", errBroken, err)
		}
		if answer == nil {
			return nil
		}
		if err := json.Unmarshal(data, answer); err != nil {
			return fmt.Errorf("answer is not what was expected: %w", err)
		}
		return nil
	}
}

// exchange is one HTTP request; read gets the body of a good answer.
func (e *endpoint) exchange(ctx context.Context, method, path string, body any, read func(io.Reader) error) error {
	var payload io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		payload = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, e.url+path, payload)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	request.Header.Set("Accept", "application/json")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if key := e.key(); key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := e.client.Do(request)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", path, errBroken, plain(err))
	}
	defer func() { _ = response.Body.Close() }()
	limited := io.LimitReader(response.Body, maxAnswer)
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %w", path, refusal(response, limited))
	}
	if err := read(limited); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// refusal reads an answer that is an error. Servers nest the message in
// different ways, so the body is shown as it is.
func refusal(response *http.Response, body io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(body, 4<<10))
	if err != nil {
		data = nil // the status says enough
	}
	text := strings.Join(strings.Fields(string(data)), " ")
	if len(text) > 300 {
		text = text[:300] + "..."
	}
	return &statusError{code: response.StatusCode, text: text, after: retryAfter(response.Header.Get("Retry-After"))}
}

// retryAfter reads the header's usual form, whole seconds (RFC 9110, 10.2.3).
func retryAfter(header string) time.Duration {
	seconds, err := strconv.Atoi(header)
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(min(seconds, 3600)) * time.Second
}

// plain drops the method and address that net/http repeats.
func plain(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// firstPause is the pause before the first retry; it doubles with each.
const firstPause = 200 * time.Millisecond

// backOff waits before the next attempt, spread out at random so that episodes
// do not return in step. It reports false when ctx ended first.
func backOff(ctx context.Context, attempt int, asked, limit time.Duration) bool {
	pause := firstPause << min(attempt, 16)
	pause = pause/2 + rand.N(pause/2+1)
	timer := time.NewTimer(min(max(pause, asked), limit))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
