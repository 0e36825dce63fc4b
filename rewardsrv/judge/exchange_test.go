package judge

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestRetryAfter(t *testing.T) {
	const now = "Sun, 22 Nov 2026 12:00:00 GMT"
	for name, c := range map[string]struct {
		header map[string]string
		want   time.Duration
	}{
		"none":         {nil, 0},
		"seconds":      {map[string]string{"Retry-After": "7"}, 7 * time.Second},
		"fraction":     {map[string]string{"Retry-After": "0.25"}, 250 * time.Millisecond},
		"milliseconds": {map[string]string{"Retry-After-Ms": "40", "Retry-After": "1"}, 40 * time.Millisecond},
		"date":         {map[string]string{"Retry-After": "Sun, 22 Nov 2026 12:01:30 GMT", "Date": now}, 90 * time.Second},
		"past date":    {map[string]string{"Retry-After": "Sun, 22 Nov 2026 11:00:00 GMT", "Date": now}, 0},
		"far date":     {map[string]string{"Retry-After": "Sun, 22 Nov 2076 12:00:00 GMT", "Date": now}, time.Hour},
		"too long":     {map[string]string{"Retry-After": "1e300"}, time.Hour},
		"infinite":     {map[string]string{"Retry-After": "+Inf"}, time.Hour},
		"no number":    {map[string]string{"Retry-After": "NaN"}, 0},
		"negative":     {map[string]string{"Retry-After": "-5"}, 0},
		"nonsense":     {map[string]string{"Retry-After": "soon"}, 0},
	} {
		h := http.Header{}
		for k, v := range c.header {
			h.Set(k, v)
		}
		if got := retryAfter(h); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// FuzzRefusal: whatever an endpoint says, what is shown of it is one short line of
// valid text.
func FuzzRefusal(f *testing.F) {
	f.Add(400, `{"error":{"message":"too long","param":"messages","code":"context_length_exceeded"}}`)
	f.Add(422, `{"detail":[{"loc":["body","response_format"]}]}`)
	f.Add(500, `{"error":{"message":"x","code":500}}`)
	f.Add(401, `{"error":"no"}`)
	f.Add(502, "<html>\x00\xff\n\n\u2028")
	f.Fuzz(func(t *testing.T, status int, body string) {
		r := newRefusal(&http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body))})
		shown := r.Error()
		if !utf8.ValidString(shown) || strings.ContainsAny(shown, "\r\n") || utf8.RuneCountInString(shown) > 340 {
			t.Errorf("%q shown as %q", body, shown)
		}
		_, _, _ = dialect{}.without(r)
		if f := blame(r); f == faultNone {
			t.Errorf("nobody is to blame for %d", status)
		}
	})
}

// FuzzBoundedBody: a body comes through whole up to its limit, and fails beyond.
func FuzzBoundedBody(f *testing.F) {
	f.Add("abc", 3, 1)
	f.Add("abcd", 3, 7)
	f.Fuzz(func(t *testing.T, body string, limit, chunk int) {
		limit, chunk = max(0, limit%1000), max(1, chunk%100)
		b := &boundedBody{ReadCloser: io.NopCloser(strings.NewReader(body)), left: int64(limit)}
		var got []byte
		var err error
		for err == nil {
			p := make([]byte, chunk)
			var n int
			n, err = b.Read(p)
			got = append(got, p[:n]...)
		}
		if len(body) <= limit && (!errors.Is(err, io.EOF) || string(got) != body) || len(body) > limit && (!errors.Is(err, errTooLarge) || string(got) != body[:limit]) {
			t.Errorf("limit %d of %d bytes: %d bytes, %v", limit, len(body), len(got), err)
		}
	})
}
