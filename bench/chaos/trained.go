package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/batch"
	"github.com/forager-rl/forager/learner"
	"github.com/forager-rl/forager/replay"
	"github.com/forager-rl/forager/rundir"
)

// trained is what a run has left on disk.
type trained struct {
	rows     []rundir.MetricsRow
	state    learner.State   // of the newest checkpoint
	archived []forager.Group // learned from, in the order of the files
	held     map[uint64]bool // groups in replay's table
	gone     map[uint64]bool // groups that have left it
}

// readRun reads a run directory. The replay table is opened on a copy, because
// that cuts off what a crash has left half-written.
func readRun(path string) (*trained, error) {
	dir, err := rundir.Open(path)
	if err != nil {
		return nil, err
	}
	r := &trained{held: map[uint64]bool{}, gone: map[uint64]bool{}}
	if r.rows, err = rundir.ReadMetrics(dir.MetricsPath()); err != nil {
		return nil, err
	}
	newest, err := dir.ReadCheckpoints().Latest()
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(newest.Dir, "state.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &r.state); err != nil {
		return nil, fmt.Errorf("%s: %w", newest.Dir, err)
	}
	files, err := filepath.Glob(filepath.Join(dir.RolloutsPath(), "*.arrow"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		groups, err := batch.ReadFile(file)
		if err != nil {
			return nil, err
		}
		r.archived = append(r.archived, groups...)
	}
	return r, r.readTable(dir)
}

func (r *trained) readTable(dir *rundir.Dir) (err error) {
	folder, err := os.MkdirTemp("", "forager-replay-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	if err := os.CopyFS(folder, os.DirFS(filepath.Join(dir.Path(), "replay"))); err != nil {
		return err
	}
	table, err := replay.Open(folder, dir.ID(), replay.DefaultConfig(), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, table.Close()) }()
	all, err := table.Begin(table.Stats().Epoch, 0)
	if err != nil {
		return err
	}
	for _, key := range all.Held {
		r.held[key] = true
	}
	for _, key := range all.Gone {
		r.gone[key] = true
	}
	return nil
}

// total sums a metric over all steps.
func (r *trained) total(name string) (sum float64) {
	for _, row := range r.rows {
		sum += row.Values[name]
	}
	return sum
}

// steps demands the steps 1, 2, 3, ... each once and in order, up to n.
func (r *trained) steps(n uint64) *promise {
	p := &promise{name: "steps without gap or repeat", of: len(r.rows)}
	for i, row := range r.rows {
		if row.Step != uint64(i+1) {
			p.fail("line %d of metrics.jsonl is of step %d", i+1, row.Step)
		}
	}
	if n != 0 && uint64(len(r.rows)) != n {
		p.fail("metrics.jsonl has %d steps, want %d", len(r.rows), n)
	}
	return p
}

// account demands that every credit ever issued is learned from, returned or open.
func (r *trained) account() *promise {
	budget := r.state.Budget
	p := &promise{name: "credits add up", of: int(budget.Issued)}
	if err := budget.Validate(); err != nil {
		p.fail("%v", err)
	}
	if learned := uint64(r.total("groups_informative")); learned != budget.Learned {
		p.fail("the steps learned from %d groups, the account says %d", learned, budget.Learned)
	}
	return p
}

// archive demands that every group that a step was made of is kept exactly once, and
// no others. But when replay is restarted between telling the learner of a group that
// is too old and hearing that it may forget it, it takes that for one learned from.
func (r *trained) archive() *promise {
	p := &promise{name: "a rollout is learned from once"}
	seen := map[string]bool{}
	for _, g := range r.archived {
		for i := range g.Rollouts {
			p.of++
			if id := g.Rollouts[i].ID; seen[id] {
				p.fail("rollout %s is kept twice", id)
			} else {
				seen[id] = true
			}
		}
	}
	sampled, stale := int(r.total("groups_sampled")), int(r.total("groups_stale"))
	if kept := len(r.archived); kept < sampled || kept > sampled+stale {
		p.fail("the steps were made of %d groups and gave %d up, %d are kept", sampled, stale, kept)
	}
	return p
}

// table demands that every group that has left replay was learned from or given
// up by rule.
func (r *trained) table() *promise {
	p := &promise{name: "a stored group is learned from or given up by rule", of: len(r.gone) + len(r.held)}
	archived := map[uint64]bool{}
	for _, g := range r.archived {
		archived[g.Credit.Index] = true
		if !r.gone[g.Credit.Index] && !r.held[g.Credit.Index] {
			p.fail("group %d was learned from, and replay never had it", g.Credit.Index)
		}
	}
	var missing []uint64
	for key := range r.gone {
		if !archived[key] {
			missing = append(missing, key)
		}
	}
	if stale := int(r.total("groups_stale")); len(missing) > stale {
		slices.Sort(missing)
		p.fail("%d groups have left replay without being learned from, and %d were given up: among them %d", len(missing), stale, missing[0])
	}
	return p
}

// versions demands that the policy versions that an actor plays never go back,
// within a rollout and from one to a later one, and are never above what was
// published.
func (r *trained) versions() *promise {
	p := &promise{name: "policy versions never go back"}
	published := forager.Version(0)
	for _, row := range r.rows {
		published = max(published, forager.Version(row.Values["version"]))
	}
	actors := map[string][]played{}
	for _, g := range r.archived {
		for i := range g.Rollouts {
			x := &g.Rollouts[i]
			p.of++
			if err := x.Validate(); err != nil {
				p.fail("%v", err)
				continue
			}
			if len(x.Versions) == 0 {
				continue
			}
			for j, v := range x.Versions[1:] {
				if v.Version < x.Versions[j].Version {
					p.fail("rollout %s went back from version %d to %d", x.ID, x.Versions[j].Version, v.Version)
				}
			}
			first, last := x.Versions[0].Version, x.Versions[len(x.Versions)-1].Version
			if last > published {
				p.fail("rollout %s was played with version %d, and %d is the newest that was published", x.ID, last, published)
			}
			actors[x.Actor] = append(actors[x.Actor], played{x.ID, x.Start, x.End, first, last})
		}
	}
	for actor, list := range actors {
		for _, text := range goingBack(list) {
			p.fail("actor %s: %s", actor, text)
		}
	}
	return p
}

// played is when a rollout was played, and from which version to which.
type played struct {
	id          string
	start, end  time.Time
	first, last forager.Version
}

// goingBack finds the rollouts that began, with an older version, after another
// one of the same actor had ended.
func goingBack(list []played) (bad []string) {
	byEnd := slices.SortedFunc(slices.Values(list), func(a, b played) int { return a.end.Compare(b.end) })
	slices.SortFunc(list, func(a, b played) int { return cmp.Or(a.start.Compare(b.start), cmp.Compare(a.id, b.id)) })
	newest, next := played{}, 0
	for _, x := range list {
		for next < len(byEnd) && byEnd[next].end.Before(x.start) {
			if byEnd[next].last >= newest.last {
				newest = byEnd[next]
			}
			next++
		}
		if x.first < newest.last {
			bad = append(bad, fmt.Sprintf("rollout %s began with version %d after %s had ended with %d", x.id, x.first, newest.id, newest.last))
		}
	}
	return bad
}
