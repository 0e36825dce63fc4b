package remote

import (
	"encoding/json"
	"net/http"
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy"
)

// The requests and answers of testdata are written after each server's own
// documentation and source: what is sent must be exactly that, and what comes
// back must be understood.
func TestContracts(t *testing.T) {
	for _, kind := range []Kind{VLLM, SGLang, LlamaCpp} {
		t.Run(string(kind), func(t *testing.T) {
			var fixture struct {
				Request map[string]any
				Answer  json.RawMessage
			}
			data, err := os.ReadFile("testdata/" + string(kind) + ".json")
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(data, &fixture); err != nil {
				t.Fatal(err)
			}
			f := newFake(t, kind)
			f.label = "run-v00000007"
			s := mustOpen(t, quick(f), Use{})
			version := forager.Version(0)
			if kind != LlamaCpp {
				version = 7
				w := Weights{Name: "run", Version: 7, Path: "/shared/run/v7", Adapter: kind == VLLM}
				if err := s.SetWeights(t.Context(), w); err != nil {
					t.Fatal(err)
				}
			}
			f.fail(func(path string, _ int, w http.ResponseWriter) bool {
				_, _ = w.Write(fixture.Answer)
				return true
			})
			got, err := s.NewGenerator().Generate(t.Context(), policy.Request{
				Session: 1, Context: []int32{72, 105}, MaxTokens: 16, Stop: []string{"</search>", "</answer>"},
				StopTokens: []int32{endOfSequence}, Temperature: 0.5, Seed: 42,
			})
			if err != nil {
				t.Fatal(err)
			}
			if sent := f.completions()[0].body; !reflect.DeepEqual(sent, fixture.Request) {
				t.Errorf("sent %v\nwant %v", sent, fixture.Request)
			}
			want := policy.Completion{
				Tokens: []int32{97, 300}, Logprobs: []float32{-0.25, -1.5}, Stop: policy.StopString,
				Versions: []forager.VersionSpan{{Span: forager.Span{Start: 0, End: 2}, Version: version}},
			}
			if kind == LlamaCpp {
				want.Logprobs = []float32{0, 0}
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// Every kind is recognised, plays, and keeps the stop string.
func TestEveryKindPlays(t *testing.T) {
	for _, kind := range []Kind{VLLM, SGLang, LlamaCpp, OpenAI} {
		t.Run(string(kind), func(t *testing.T) {
			f := newFake(t, kind)
			cfg := quick(f)
			cfg.URLs[0] += "/v1/"
			s := mustOpen(t, cfg, Use{})
			if s.Kind() != kind {
				t.Fatalf("recognised as %s", s.Kind())
			}
			request := policy.Request{Session: 1, Context: []int32{'H'}, MaxTokens: 20, Stop: []string{"</search>", "</answer>"}}
			got, err := s.NewGenerator().Generate(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			if text := (bytesTokenizer{}).Decode(got.Tokens); text != "hm</answer>" || got.Stop != policy.StopString || len(got.Logprobs) != len(got.Tokens) {
				t.Errorf("%q, %d log-probabilities, stop %q", text, len(got.Logprobs), got.Stop)
			}
			if kind == OpenAI {
				return
			}
			request.MaxTokens = 2
			if got, err = s.NewGenerator().Generate(t.Context(), request); err != nil || len(got.Tokens) != 2 || got.Stop != policy.StopLength {
				t.Errorf("two tokens: %+v, %v", got, err)
			}
			// The server's context of 40 is full.
			request.Context = make([]int32, 40)
			if got, err = s.NewGenerator().Generate(t.Context(), request); err != nil || len(got.Tokens) != 0 || got.Stop != policy.StopLength {
				t.Errorf("no room: %+v, %v", got, err)
			}
		})
	}
}

func TestEndOfSequence(t *testing.T) {
	for kind, body := range map[Kind]string{
		VLLM:     `{"model":"tiny","choices":[{"finish_reason":"stop","stop_reason":null,"token_ids":[97,256],"logprobs":{"token_logprobs":[-1,-2]}}]}`,
		SGLang:   `{"meta_info":{"finish_reason":{"type":"stop","matched":256},"output_token_logprobs":[[-1,97,null],[-2,256,null]],"weight_version":"default"}}`,
		LlamaCpp: `{"tokens":[97,256],"stop_type":"eos"}`,
		OpenAI:   "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":null}]}\n\ndata: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n",
	} {
		f := newFake(t, kind)
		s := mustOpen(t, quick(f), Use{})
		f.fail(func(_ string, _ int, w http.ResponseWriter) bool {
			_, _ = w.Write([]byte(body))
			return true
		})
		got, err := s.NewGenerator().Generate(t.Context(), policy.Request{Context: []int32{'H'}, MaxTokens: 5})
		if err != nil || got.Stop != policy.StopEOS || !slices.Equal(got.Tokens, []int32{97, endOfSequence}) {
			t.Errorf("%s: %+v, %v", kind, got, err)
		}
	}
}

func TestStopStringInAStream(t *testing.T) {
	for _, c := range []struct {
		pieces []string
		want   string
		stop   bool
	}{
		{[]string{"a</sea", "rch> b</answer>"}, "a</search>", true},
		{[]string{"a</answer></search>"}, "a</answer>", true},
		{[]string{"<", "/", "a"}, "</a", false},
		{[]string{"</search>"}, "</search>", true},
	} {
		s := textStream{stop: []string{"</search>", "", "</answer>"}}
		for _, p := range c.pieces {
			s.add(p)
		}
		if s.text.String() != c.want || s.stopped != c.stop {
			t.Errorf("%q: %q, stopped %v", c.pieces, s.text.String(), s.stopped)
		}
	}
}
