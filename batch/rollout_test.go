package batch

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/forager-rl/forager"
)

// episode is a rollout of the shape that the built-in tasks give: prompt, then
// searches with their observations, then an answer.
func episode(rng *rand.Rand, c forager.Credit, sample, tokens, policy int) forager.Rollout {
	r := forager.Rollout{
		Run: c.Run, ID: forager.RolloutID(c.Run, c.Index, sample), TaskID: c.TaskID, Dataset: "world-facts",
		Group: c.Index, Sample: sample, Actor: "host-1/actor-3", Seed: c.Seed + uint64(sample),
		Start:  time.UnixMicro(1_700_000_000_000_000 + rng.Int64N(1e12)).UTC(),
		End:    time.UnixMicro(1_700_000_100_000_000 + rng.Int64N(1e12)).UTC(),
		Tokens: make([]int32, tokens), Logprobs: make([]float32, tokens), LossMask: make([]bool, tokens),
		Answer: "Vientiane", Finish: forager.FinishAnswer, Rewards: map[string]float64{"em": 1, "f1": 0.8, "format": 1},
	}
	for i := range r.Tokens {
		r.Tokens[i] = rng.Int32N(32000)
	}
	const turns = 3
	per, block := policy/turns, tokens/(turns+1)
	for t := range turns {
		action := forager.Span{Start: int32((t + 1) * block), End: int32((t+1)*block + per)}
		for i := action.Start; i < action.End; i++ {
			r.LossMask[i], r.Logprobs[i] = true, -rng.Float32()
		}
		r.Versions = append(r.Versions, forager.VersionSpan{Span: action, Version: c.Version + forager.Version(t/2)})
		turn := forager.Turn{Kind: forager.TurnAnswer, Text: "Vientiane", Action: action, Observation: forager.Span{Start: action.End, End: action.End}}
		if t < turns-1 {
			turn.Kind, turn.Text, turn.Latency = forager.TurnSearch, "capital of the country north of Cambodia", 2*time.Millisecond
			turn.Observation.End = int32((t + 2) * block)
			for d := range 3 {
				turn.DocIDs = append(turn.DocIDs, fmt.Sprintf("country-%d", rng.IntN(250)))
				turn.DocScores = append(turn.DocScores, 10/float64(d+1))
			}
		}
		r.Turns = append(r.Turns, turn)
	}
	return r
}

func episodes(seed uint64, groups, size int) []forager.Group {
	rng := rand.New(rand.NewPCG(seed, 1))
	out := make([]forager.Group, groups)
	for g := range out {
		c := forager.Credit{Run: "laos", Index: uint64(g), TaskID: fmt.Sprintf("bridge-%05d", rng.IntN(5000)),
			Seed: rng.Uint64(), GroupSize: size, Version: forager.Version(g / 8), Epoch: 2}
		out[g].Credit = c
		for s := range size {
			out[g].Rollouts = append(out[g].Rollouts, episode(rng, c, s, 240, 60))
		}
	}
	return out
}

// oddGroups is every valid shape that random choice finds: empty strings and
// lists, forks, no policy tokens, spans of length 0, strange text.
func oddGroups(rng *rand.Rand) []forager.Group {
	words := []string{"", "a", "Köln", "\x00", "日本", strings.Repeat("long ", 40), "line\nbreak"}
	word := func() string { return words[rng.IntN(len(words))] }
	out := make([]forager.Group, 1+rng.IntN(4))
	for g := range out {
		c := forager.Credit{Run: word(), Index: rng.Uint64N(1 << 60), TaskID: word(), Seed: rng.Uint64(), GroupSize: rng.IntN(9),
			Version: forager.Version(rng.Uint64()), Epoch: rng.Uint64()}
		out[g].Credit = c
		for s := range 1 + rng.IntN(3) {
			n := 1 + rng.IntN(30)
			r := forager.Rollout{Run: c.Run, ID: forager.RolloutID("x", c.Index, s), TaskID: c.TaskID, Dataset: word(), Group: c.Index,
				Sample: s, Actor: word(), Seed: rng.Uint64(), Tokens: make([]int32, n), Logprobs: make([]float32, n),
				LossMask: make([]bool, n), Answer: word(), Finish: forager.Finish(word())}
			if rng.IntN(2) == 0 {
				r.ParentID, r.ForkTurn = "p"+word(), rng.IntN(5)
				r.Start, r.End = time.UnixMicro(rng.Int64()>>12).UTC(), time.UnixMicro(-rng.Int64()>>12).UTC()
			}
			span := forager.VersionSpan{}
			for i := range r.Tokens {
				r.Tokens[i] = int32(rng.Uint32())
				if r.LossMask[i] = rng.IntN(2) == 0; r.LossMask[i] {
					r.Logprobs[i] = -rng.Float32() * 30
					if span.End != int32(i) || rng.IntN(3) == 0 {
						if span.Len() > 0 {
							r.Versions = append(r.Versions, span)
						}
						span = forager.VersionSpan{Span: forager.Span{Start: int32(i), End: int32(i)}, Version: forager.Version(rng.Uint64())}
					}
					span.End++
				}
			}
			if span.Len() > 0 {
				r.Versions = append(r.Versions, span)
			}
			for range rng.IntN(4) {
				at := rng.Int32N(int32(n))
				t := forager.Turn{Kind: forager.TurnKind(word()), Text: word(), Action: forager.Span{Start: at, End: int32(n)},
					Observation: forager.Span{Start: at, End: at}, Latency: time.Duration(rng.Int64()).Truncate(time.Microsecond)}
				for range rng.IntN(3) {
					t.DocIDs = append(t.DocIDs, word())
				}
				for range rng.IntN(3) {
					t.DocScores = append(t.DocScores, rng.NormFloat64())
				}
				r.Turns = append(r.Turns, t)
			}
			for range rng.IntN(3) {
				if r.Rewards == nil {
					r.Rewards = map[string]float64{}
				}
				r.Rewards[word()] = rng.NormFloat64()
			}
			if rng.IntN(3) == 0 { // an archived rollout; those on the way have none
				r.Annotations = someAnnotations()
			}
			out[g].Rollouts = append(out[g].Rollouts, r)
		}
	}
	return out
}

func TestGroupsRoundTrip(t *testing.T) {
	for seed := range uint64(300) {
		groups := oddGroups(rand.New(rand.NewPCG(seed, 7)))
		mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
		data, err := encodeGroups(mem, groups)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		got, err := decodeGroups(mem, newMessages(data))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		mem.AssertSize(t, 0)
		if !reflect.DeepEqual(got, groups) {
			t.Fatalf("seed %d:\n got %+v\nwant %+v", seed, got, groups)
		}
		again, err := EncodeGroups(got)
		if err != nil || string(again) != string(data) {
			t.Fatalf("seed %d: the same groups gave other bytes (%v)", seed, err)
		}
	}
}

func TestManyRecords(t *testing.T) {
	groups := episodes(1, 300, 8) // 2400 rows: groups lie across the borders of records
	data, err := EncodeGroups(groups)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeGroups(data)
	if err != nil || !reflect.DeepEqual(got, groups) {
		t.Fatalf("%d groups came back of %d: %v", len(got), len(groups), err)
	}
}

func TestNoGroups(t *testing.T) {
	data, err := EncodeGroups(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeGroups(data); err != nil || got != nil {
		t.Fatalf("got %v, %v", got, err)
	}
}

// TestBytesPerToken holds the yardstick of the design for a flush of 512 KiB.
func TestBytesPerToken(t *testing.T) {
	for _, n := range []int{1, 8, 32} {
		data, err := EncodeGroups(episodes(2, n, 8))
		if err != nil {
			t.Fatal(err)
		}
		perToken := float64(len(data)) / float64(n*8*240)
		t.Logf("%2d groups of 8 episodes of 240 tokens: %7d bytes, %.2f bytes per token", n, len(data), perToken)
		if n >= 8 && perToken > 9 {
			t.Errorf("%.2f bytes per token, want at most 9", perToken)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, spoil := range map[string]func([]forager.Group){
		"no rollouts":        func(g []forager.Group) { g[0].Rollouts = nil },
		"is not of its cred": func(g []forager.Group) { g[1].Rollouts[2].Group = 77 },
		"there twice": func(g []forager.Group) {
			g[1].Credit.Index = 0
			for i := range g[1].Rollouts {
				g[1].Rollouts[i].Group = 0
			}
		},
		"lengths differ": func(g []forager.Group) { g[0].Rollouts[0].Logprobs = nil },
	} {
		groups := episodes(3, 2, 4)
		spoil(groups)
		if _, err := EncodeGroups(groups); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestDecodeRefusesInvalidRollout(t *testing.T) {
	groups := episodes(4, 1, 2)
	groups[0].Rollouts[1].Versions = groups[0].Rollouts[1].Versions[1:] // leaves policy tokens uncovered
	data, err := rolloutTable.encode(memory.DefaultAllocator, rolloutRows(groups))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeGroups(data); !errors.Is(err, forager.ErrCorrupt) {
		t.Fatalf("got %v, want ErrCorrupt", err)
	}
}

func TestTruncated(t *testing.T) {
	data, err := EncodeGroups(episodes(5, 2, 2))
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(data); n += 1 + n/97 {
		if _, err := DecodeGroups(data[:n]); !errors.Is(err, forager.ErrCorrupt) {
			t.Fatalf("%d of %d bytes: got %v, want ErrCorrupt", n, len(data), err)
		}
	}
}

// TestPythonCanReadIt: text that is no UTF-8 and a time of single nanoseconds come
// out as what pyarrow takes, and so does text that was written by somebody else.
func TestPythonCanReadIt(t *testing.T) {
	g := forager.Group{Credit: forager.Credit{Run: "run", TaskID: "task", GroupSize: 1}}
	r := episode(rand.New(rand.NewPCG(1, 1)), g.Credit, 0, 40, 20)
	r.Answer, r.Turns[0].Text, r.Turns[0].DocIDs, r.Turns[0].Latency = "Kel\x81n", "\xff\xfe river", []string{"d\xc3"}, 1061*time.Nanosecond
	g.Rollouts = []forager.Rollout{r}
	data, err := EncodeGroups([]forager.Group{g})
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte("Kel\x81n")) || bytes.Contains(data, []byte("\xff\xfe river")) {
		t.Error("text that is no UTF-8 is written")
	}
	got := decodedOne(t, data)
	if turn := got.Turns[0]; got.Answer != "Kel\uFFFDn" || turn.Text != "\uFFFD river" || turn.DocIDs[0] != "d\uFFFD" || turn.Latency != time.Microsecond {
		t.Errorf("answer %q, turn %q, documents %q, latency %v", got.Answer, turn.Text, turn.DocIDs, turn.Latency)
	}
	foreign := bytes.Replace(data, []byte("Kel\uFFFDn"), []byte("Kel\x81.\x83n"), 1)
	if got := decodedOne(t, foreign); got.Answer != "Kel\uFFFD.\uFFFDn" { // longer than its bytes
		t.Errorf("answer %q of another writer", got.Answer)
	}
}

func decodedOne(t *testing.T, data []byte) forager.Rollout {
	t.Helper()
	groups, err := DecodeGroups(data)
	if err != nil {
		t.Fatal(err)
	}
	return groups[0].Rollouts[0]
}
