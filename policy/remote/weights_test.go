package remote

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/forager-rl/forager"
)

func adapter(v forager.Version) Weights {
	return Weights{Name: "run", Version: v, Path: "/shared/run", Adapter: true}
}

func whole(v forager.Version) Weights { return Weights{Name: "run", Version: v, Path: "/shared/run"} }

// sampled plays once and gives the version behind the tokens.
func sampled(t *testing.T, s *Servers) forager.Version {
	t.Helper()
	done, err := s.NewGenerator().Generate(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	if len(done.Versions) != 1 || done.Versions[0].Len() != len(done.Tokens) {
		t.Fatalf("versions %v of %d tokens", done.Versions, len(done.Tokens))
	}
	return done.Versions[0].Version
}

// Adapters have a name for each version; the last two stay.
func TestAdapters(t *testing.T) {
	for _, kind := range []Kind{VLLM, SGLang} {
		t.Run(string(kind), func(t *testing.T) {
			f := newFake(t, kind)
			s := mustOpen(t, quick(f), training)
			for v := range forager.Version(5) {
				if err := s.SetWeights(t.Context(), adapter(v)); err != nil {
					t.Fatal(err)
				}
				if got := sampled(t, s); got != v || s.Version() != v {
					t.Errorf("tokens of version %d, servers at %d, want %d", got, s.Version(), v)
				}
			}
			if names := slices.Sorted(maps.Keys(f.adapters)); !slices.Equal(names, []string{"run-v00000003", "run-v00000004"}) {
				t.Errorf("adapters %v", names)
			}
			for _, v := range []forager.Version{4, 2} {
				if err := s.SetWeights(t.Context(), adapter(v)); !errors.Is(err, forager.ErrStale) {
					t.Errorf("version %d after 4: %v", v, err)
				}
			}
			// Another actor of the run has brought the adapter already.
			other := mustOpen(t, quick(f), training)
			if err := other.SetWeights(t.Context(), adapter(4)); err != nil {
				t.Error(err)
			}
			// A server that comes back empty is given its adapter again.
			f.restart()
			if got := sampled(t, s); got != 4 {
				t.Errorf("after a restart: version %d", got)
			}
		})
	}
}

func TestWholeModels(t *testing.T) {
	v := mustOpen(t, quick(newFake(t, VLLM)), training)
	if err := v.SetWeights(t.Context(), whole(1)); !errors.Is(err, ErrUnsuitable) || !strings.Contains(err.Error(), "trainer.lora") {
		t.Errorf("whole model for vLLM: %v", err)
	}

	f := newFake(t, SGLang)
	s, other := mustOpen(t, quick(f), training), mustOpen(t, quick(f), training)
	if err := s.SetWeights(t.Context(), whole(1)); err != nil {
		t.Fatal(err)
	}
	if got := sampled(t, s); got != 1 {
		t.Errorf("version %d, want 1", got)
	}
	// Another actor's update shows in the answers of the server, and is not
	// taken back by a slower one.
	if err := other.SetWeights(t.Context(), whole(3)); err != nil {
		t.Fatal(err)
	}
	if got := sampled(t, s); got != 3 {
		t.Errorf("version %d, want 3", got)
	}
	if err := s.SetWeights(t.Context(), whole(2)); err != nil {
		t.Fatal(err)
	}
	if got := sampled(t, s); got != 3 || f.updates != 2 {
		t.Errorf("version %d after %d updates, want 3 and 2", got, f.updates)
	}
	f.restart()
	if got := sampled(t, s); got != 2 { // what this actor was told last
		t.Errorf("after a restart: version %d", got)
	}
	f.mu.Lock()
	f.label = "elsewhere-v00000009"
	f.mu.Unlock()
	if _, err := s.NewGenerator().Generate(t.Context(), ask); !errors.Is(err, forager.ErrInUse) || !strings.Contains(err.Error(), "elsewhere") {
		t.Errorf("weights of another run: %v", err)
	}
}

// A server that cannot load is left out; when none can, the old version stays.
func TestServerThatCannotLoad(t *testing.T) {
	good, bad := newFake(t, VLLM), newFake(t, VLLM)
	cfg := quick(good, bad)
	s := mustOpen(t, cfg, training)
	missing := func(path string, _ int, w http.ResponseWriter) bool {
		if path == "/v1/load_lora_adapter" {
			http.NotFound(w, nil)
			return true
		}
		return false
	}
	bad.fail(missing)
	if err := s.SetWeights(t.Context(), adapter(1)); err != nil {
		t.Fatal(err)
	}
	if got := sampled(t, s); got != 1 {
		t.Errorf("version %d, want 1", got)
	}
	good.fail(missing)
	err := s.SetWeights(t.Context(), adapter(2))
	if err == nil || !strings.Contains(err.Error(), "VLLM_ALLOW_RUNTIME_LORA_UPDATING") {
		t.Errorf("error is %v", err)
	}
	if got := sampled(t, s); got != 1 {
		t.Errorf("version %d, want 1", got)
	}
}

func TestParseTag(t *testing.T) {
	for _, name := range []string{"run", "a-v1", ""} {
		got, v, ok := parseTag(Weights{Name: name, Version: 12345678901}.tag())
		if got != name || v != 12345678901 || !ok {
			t.Errorf("%q: %q, %d, %v", name, got, v, ok)
		}
	}
	for _, foreign := range []string{"", "default", "x-v", "x-v-1", "step-vx"} {
		if _, _, ok := parseTag(foreign); ok {
			t.Errorf("%q was taken for a tag", foreign)
		}
	}
}
