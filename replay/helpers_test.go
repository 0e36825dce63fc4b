package replay

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/batch"
)

var quiet = slog.New(slog.DiscardHandler)

// group makes a group of size rollouts of n tokens, all sampled by one version.
func group(key uint64, size, n int, version forager.Version) forager.Group {
	g := forager.Group{Credit: forager.Credit{
		Run: "run", Index: key, TaskID: fmt.Sprint("task-", key%7), Seed: key, GroupSize: size, Version: version,
	}}
	for sample := range size {
		r := forager.Rollout{
			Run: "run", ID: forager.RolloutID("run", key, sample), TaskID: g.Credit.TaskID, Group: key, Sample: sample,
			Start: time.Unix(1e9, 0).UTC(), End: time.Unix(1e9+1, 0).UTC(), Seed: key,
			Tokens: make([]int32, n), Logprobs: make([]float32, n), LossMask: make([]bool, n),
			Versions: []forager.VersionSpan{{Span: forager.Span{Start: 1, End: int32(n)}, Version: version}},
			Turns:    []forager.Turn{{Kind: forager.TurnAnswer, Text: "Paris", Action: forager.Span{Start: 1, End: int32(n)}}},
			Answer:   "Paris", Finish: forager.FinishAnswer, Rewards: map[string]float64{"em": 1},
		}
		for i := 1; i < n; i++ {
			r.Tokens[i], r.Logprobs[i], r.LossMask[i] = int32(i+int(key))%1024, -0.5, true
		}
		g.Rollouts = append(g.Rollouts, r)
	}
	return g
}

func encode(tb testing.TB, groups ...forager.Group) []byte {
	tb.Helper()
	raw, err := batch.EncodeGroups(groups)
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

func small(key uint64, version forager.Version) forager.Group { return group(key, 2, 4, version) }

func open(tb testing.TB, dir string, config Config) *Table {
	tb.Helper()
	t, err := Open(dir, "run", config, quiet)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := t.Close(); err != nil {
			tb.Error(err)
		}
	})
	return t
}

// lend samples without waiting.
func lend(tb testing.TB, t *Table, epoch, sequence uint64, q Query) (keys []uint64, drops []Drop, groups []forager.Group) {
	tb.Helper()
	t.mu.Lock()
	loan, err := t.lend(epoch, sequence, q)
	t.mu.Unlock()
	if err != nil {
		tb.Fatal(err)
	}
	if groups, err = loan.Groups(); err != nil {
		tb.Fatal(err)
	}
	for _, g := range groups {
		keys = append(keys, g.Credit.Index)
	}
	return keys, loan.Drops, groups
}

func label(key uint64, sample, turn int, source string, value float64) forager.Annotation {
	return forager.Annotation{
		RolloutID: forager.RolloutID("run", key, sample), Turn: turn, Source: source, Value: &value,
		Time: time.Unix(1e9, 0).UTC(),
	}
}

var everything = Query{MaxGroups: 1 << 20, MaxBytes: 1 << 30}
