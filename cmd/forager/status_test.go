package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/cluster"
	"github.com/forager-rl/forager/node"
)

// sickRun is a run with everything that a status can show.
func sickRun() *node.Status {
	now := time.Date(2026, 3, 1, 12, 0, 5, 0, time.UTC)
	version := func(v forager.Version) *forager.Version { return &v }
	member := func(host string, age time.Duration, roles ...forager.Role) cluster.Member {
		return cluster.Member{Name: host + "-7", Roles: roles, Host: host, PID: 7, Version: "v0.5.0", Started: now.Add(-age)}
	}
	voter := func(host, leader string) cluster.Member {
		m := member(host, 50*time.Hour, forager.RoleCluster)
		m.Raft = &cluster.View{Node: host, Leader: leader, Term: 4}
		return m
	}
	learner := member("learner-0", 2*time.Hour, forager.RoleLearner)
	learner.Policy, learner.Epoch, learner.Step = version(19), 2, 19
	standby := member("learner-1", 90*time.Second, forager.RoleLearner)
	standby.Waits = []cluster.Wait{{Role: forager.RoleLearner, What: "the lease, which another learner holds", Seconds: 88}}
	actor := member("forager-actor-7d9f8c6b5d-x2x9z", 30*time.Minute, forager.RoleActor)
	actor.Policy, actor.Credits, actor.Version = version(12), 6, "v0.4.0-0.20260101000000-0123456789ab"
	labels := member("labels", 4*time.Second, forager.RoleRewardServer)
	labels.Labels = 1
	return &node.Status{
		Run: "trial", Time: now, Version: "v0.5.0", Bus: "tls://nats:4222",
		Findings: []node.Finding{
			{Rule: "no-replay", Level: node.LevelWrong, Says: "replay is not running: 3 batches of rollouts wait for it", Do: "start it with: forager replay; until it is back actors pause once the rollouts stream is full"},
			{Rule: "unread", Level: node.LevelWrong, Says: "the object store could not be read: \x1b[2Jno answer", Do: "ask again"},
			{Rule: "digests-full", Level: node.LevelNote, Says: "the digests stream is 99 % full: the oldest turns go without labels", Do: "start more reward servers or faster judges, if labels are worth it"},
		},
		Members: []cluster.Member{
			member("nats", 50*time.Hour, forager.RoleNATS), voter("cluster-1", "cluster-1"), voter("cluster-2", "cluster-1"),
			labels, member("retriever", 3*time.Hour, forager.RoleRetriever), learner, standby, actor,
			member("laptop", time.Second, forager.Roles()...),
		},
		Raft: node.RaftStatus{Leader: "cluster-1", Term: 4, Voters: []node.Voter{
			{Node: "cluster-1", Answers: true}, {Node: "cluster-2", Answers: true}, {Node: "cluster-3"}}},
		Lease:   &node.LeaseStatus{Holder: "learner-0-7", Epoch: 2, RemainingSeconds: 3.21},
		Weights: &node.WeightsStatus{Version: 19, Step: 19, Epoch: 2, Bytes: 12_345_678, AgeSeconds: 41},
		Actors:  []node.ActorStatus{{Name: actor.Name, Policy: 12, Behind: 7, Seconds: 60, Credits: 6}},
		Credits: &node.CreditStatus{Waiting: 16, Held: 6, Actors: 1, PerActor: 16},
		Replay:  &cluster.Table{Groups: 4000, Lent: 12, Capacity: 4096, Bytes: 3_200_000, Inserted: 10_300, Committed: 6200, Stale: 99, Evicted: 1},
		Labels:  node.LabelStatus{Servers: 1, Waiting: 1, Digests: 1200},
		Streams: []node.StreamStatus{
			{Name: "credits", Messages: 22, Bytes: 4200, Waiting: 16, Held: 6, MaxMessages: 1 << 20, Fill: 22.0 / (1 << 20)},
			{Name: "rollouts", Messages: 3, Bytes: 520_000_000, Waiting: 3, MaxBytes: 512 << 20, Fill: 0.968},
			{Name: "objects", Bytes: 24_691_356, MaxBytes: 4 << 30, Fill: 0.005},
		},
		Errors: map[string]string{"objects": "no answer"},
	}
}

// TestStatusView compares what a person sees with testdata/status.txt, and keeps
// it within a screen.
func TestStatusView(t *testing.T) {
	palette, err := newPalette("never", true)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := (statusView{palette}).write(&out, sickRun()); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		line = strings.TrimSuffix(line, "\n")
		if n := len([]rune(line)); n > screen || strings.TrimRight(line, " ") != line || strings.Contains(line, "\x1b") {
			t.Errorf("%d columns, trailing spaces or control characters: %q", n, line)
		}
	}
	golden := filepath.Join("testdata", "status.txt")
	if *update {
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s\n(-update writes it anew)", out.String(), want)
	}
}

// TestStatusColour: colour changes no text.
func TestStatusColour(t *testing.T) {
	var texts []string
	for _, when := range []string{"never", "always"} {
		palette, err := newPalette(when, true)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := (statusView{palette}).write(&out, sickRun()); err != nil {
			t.Fatal(err)
		}
		texts = append(texts, out.String())
	}
	plain := strings.NewReplacer("\x1b[1m", "", "\x1b[31m", "", "\x1b[32m", "", "\x1b[33m", "", "\x1b[0m", "", "\x1b[22m", "").Replace(texts[1])
	if plain != texts[0] || texts[0] == texts[1] {
		t.Errorf("with colour:\n%q\nwithout:\n%q", texts[1], texts[0])
	}
}

func TestLookAt(t *testing.T) {
	healthy, sick := node.Status{Run: "trial", Healthy: true}, *sickRun()
	shown := 0
	show := func(*node.Status) error { shown++; return nil }
	read := func(s node.Status, err error) func(context.Context) (node.Status, error) {
		return func(context.Context) (node.Status, error) { return s, err }
	}
	if err := lookAt(t.Context(), false, show, read(healthy, nil)); err != nil || shown != 1 {
		t.Errorf("healthy: %v, shown %d times", err, shown)
	}
	if err := lookAt(t.Context(), false, show, read(sick, nil)); err == nil || err.Error() != "run trial: 2 things are wrong" {
		t.Errorf("sick: %v", err)
	}
	broken := errors.New("no run is named")
	if err := lookAt(t.Context(), true, show, read(healthy, broken)); !errors.Is(err, broken) {
		t.Errorf("broken: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	shown = 0
	stop := func(*node.Status) error { shown++; cancel(); return nil }
	if err := lookAt(ctx, true, stop, read(sick, nil)); err != nil || shown != 1 {
		t.Errorf("a watch that was ended: %v, shown %d times", err, shown)
	}
}

func TestWrapped(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"one two", "one two"},
		{"one two three four", "one two|  three|  four"},
		{"abcdefghijklmnop", "abcdefgh|  ijklmn|  op"},
	} {
		if got := strings.Join(wrapped(c.text, 8, 2), "|"); got != c.want {
			t.Errorf("%q: got %q, want %q", c.text, got, c.want)
		}
	}
}
