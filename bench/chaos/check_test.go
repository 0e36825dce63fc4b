package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/batch"
	"github.com/forager-rl/forager/learner"
	"github.com/forager-rl/forager/replay"
	"github.com/forager-rl/forager/rundir"
)

// The whole run: three steps of two groups of two rollouts, and one group more
// that waits in replay.
const (
	runID      = "tried"
	stepCount  = 3
	groupCount = 2 * stepCount
)

var begun = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// group is the group of a credit, played in its own minute with the newest version.
func group(credit uint64) forager.Group {
	version := forager.Version(credit / 2)
	g := forager.Group{Credit: forager.Credit{Run: runID, Index: credit, TaskID: "t", GroupSize: 2, Epoch: 1, Version: version}}
	for sample := range 2 {
		start := begun.Add(time.Duration(credit) * time.Minute)
		g.Rollouts = append(g.Rollouts, forager.Rollout{
			Run: runID, ID: forager.RolloutID(runID, credit, sample), TaskID: "t", Group: credit, Sample: sample, Actor: "a",
			Start: start, End: start.Add(time.Second), Tokens: []int32{1, 2}, Logprobs: []float32{0, -1}, LossMask: []bool{false, true},
			Versions: []forager.VersionSpan{{Span: forager.Span{Start: 1, End: 2}, Version: version}},
			Finish:   forager.FinishAnswer, Rewards: map[string]float64{"em": 1},
		})
	}
	return g
}

// writeRun makes the run directory and the actors' logs, each with what the edits
// make of them.
func writeRun(t *testing.T, e edits) (dir, logs string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	held := func() error { return nil }
	d, err := rundir.Create(t.TempDir(), runID)
	must(err)
	metrics, err := d.OpenMetrics(0, held)
	must(err)
	for step := range uint64(stepCount) {
		if e.skipStep == step+1 {
			continue
		}
		must(metrics.Append(step+1, map[string]float64{
			"version": float64(step + 1), "em": 0.5, "groups_sampled": 2, "groups_informative": 2, "groups_stale": 0,
		}))
	}
	must(metrics.Close())

	state := learner.State{Run: runID, Step: stepCount, Version: stepCount, Budget: learner.Budget{Issued: groupCount + 1, Learned: groupCount, Open: []uint64{groupCount}}}
	if e.state != nil {
		e.state(&state)
	}
	checkpoints, err := d.Checkpoints(1, 1)
	must(err)
	_, err = checkpoints.Save(stepCount, func(dir string) error {
		data, err := json.Marshal(state)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, "state.json"), data, 0o644)
	}, held)
	must(err)

	table, err := replay.Open(filepath.Join(d.Path(), "replay"), runID, replay.DefaultConfig(), slog.New(slog.DiscardHandler))
	must(err)
	for credit := range uint64(groupCount + 1) {
		data, err := batch.EncodeGroups([]forager.Group{group(credit)})
		must(err)
		if credit != e.lostByReplay {
			_, _, err = table.Insert(data)
			must(err)
		}
	}
	_, err = table.Begin(1, 0)
	must(err)
	for step := range uint64(stepCount) {
		groups := []forager.Group{group(2 * step), group(2*step + 1)}
		must(table.Commit(1, []uint64{2 * step, 2*step + 1}))
		if e.archive != nil {
			groups = e.archive(step, groups)
		}
		must(batch.WriteFile(filepath.Join(d.RolloutsPath(), fmt.Sprintf("groups-%08d.arrow", 2*step)), groups))
	}
	must(table.Close())

	logs = t.TempDir()
	var lines strings.Builder
	for credit := range groupCount + 1 {
		fmt.Fprintf(&lines, "time=2026-11-29T12:00:00Z level=DEBUG msg=\"group is stored\" credit=%d\n", credit)
	}
	must(os.WriteFile(filepath.Join(logs, "actor.log"), []byte(lines.String()), 0o644))
	return d.Path(), logs
}

// edits damage a run.
type edits struct {
	skipStep     uint64
	lostByReplay uint64 // of this credit, unless it is noCredit
	state        func(*learner.State)
	archive      func(step uint64, groups []forager.Group) []forager.Group
}

const noCredit = 1 << 40

func TestCheck(t *testing.T) {
	second := func(change func([]forager.Group) []forager.Group) func(uint64, []forager.Group) []forager.Group {
		return func(step uint64, groups []forager.Group) []forager.Group {
			if step != 1 {
				return groups
			}
			return change(groups)
		}
	}
	for name, c := range map[string]struct {
		edit edits
		want string // "" for a whole run
	}{
		"whole":                 {edits{}, ""},
		"a step":                {edits{skipStep: 2}, "line 2 of metrics.jsonl is of step 3"},
		"the account":           {edits{state: func(s *learner.State) { s.Budget.Returned = 1 }}, "credits add up"},
		"more learned":          {edits{state: func(s *learner.State) { s.Budget.Learned, s.Budget.Issued = 7, 8 }}, "the account says 7"},
		"an acknowledged group": {edits{lostByReplay: groupCount}, "group 6 was acknowledged and replay never had it"},
		"a group of a step": {edits{archive: second(func(g []forager.Group) []forager.Group { return g[:1] })},
			"1 groups have left replay without being learned from, and 0 were given up: among them 3"},
		"twice": {edits{archive: second(func(g []forager.Group) []forager.Group { return append(g, group(0)) })}, "rollout tried-00000000-000 is kept twice"},
		"one too many": {edits{archive: second(func(g []forager.Group) []forager.Group { return append(g, group(groupCount)) })},
			"the steps were made of 6 groups and gave 0 up, 7 are kept"},
		"back between rollouts": {edits{archive: second(func(g []forager.Group) []forager.Group {
			g[1].Rollouts[0].Versions[0].Version = 0
			return g
		})}, "began with version 0 after"},
		"never published": {edits{archive: second(func(g []forager.Group) []forager.Group {
			g[1].Rollouts[0].Versions[0].Version = 9
			return g
		})}, "was played with version 9, and 3 is the newest"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.edit.lostByReplay == 0 {
				c.edit.lostByReplay = noCredit
			}
			dir, logs := writeRun(t, c.edit)
			r, err := readRun(dir)
			if err != nil {
				t.Fatal(err)
			}
			acknowledged, err := r.acknowledged(logs)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			err = report(&out, []*promise{r.steps(0), r.account(), r.archive(), r.table(), r.versions(), acknowledged})
			if (err != nil) != (c.want != "") || !strings.Contains(out.String(), c.want) {
				t.Errorf("got error %v and\n%swant %q in it", err, out.String(), c.want)
			}
		})
	}
}

func TestCheckWantsLogsOfActors(t *testing.T) {
	dir, _ := writeRun(t, edits{lostByReplay: noCredit})
	r, err := readRun(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.acknowledged(t.TempDir()); err == nil {
		t.Error("no logs at all are taken for nothing lost")
	}
}

func TestSameResult(t *testing.T) {
	dir, _ := writeRun(t, edits{lostByReplay: noCredit})
	r, err := readRun(dir)
	if err != nil {
		t.Fatal(err)
	}
	for noise, want := range map[float64]int{0.05: 1, 0.5: 0} {
		r.rows[len(r.rows)-1].Values["em"] = 0.1
		p, err := r.sameResult(dir, 1, noise)
		if err != nil || len(p.broken) != want {
			t.Errorf("noise %v: %v broken, want %d (%v)", noise, p.broken, want, err)
		}
	}
}

func TestReportShowsAFew(t *testing.T) {
	p := &promise{name: "many"}
	for i := range 9 {
		p.fail("breach %d", i)
	}
	var out strings.Builder
	if err := report(&out, []*promise{p}); err == nil || strings.Count(out.String(), "breach") != shownOfEach || !strings.Contains(out.String(), "and 4 more") {
		t.Errorf("got %v and\n%s", err, out.String())
	}
	if err := report(io.Discard, []*promise{{name: "none"}}); err != nil {
		t.Error(err)
	}
}
