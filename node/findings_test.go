package node

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/cluster"
)

// healthy is a run of six processes in which nothing is wrong.
func healthy() Status {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	version := func(v forager.Version) *forager.Version { return &v }
	member := func(name string, role forager.Role) cluster.Member {
		return cluster.Member{Name: name, Roles: []forager.Role{role}, Host: name, PID: 1, Version: "v1", Started: now.Add(-time.Hour)}
	}
	node := func(name string) cluster.Member {
		m := member(name, forager.RoleCluster)
		m.Raft = &cluster.View{Node: name, Leader: "c1", Term: 3, Voters: []string{"c1", "c2", "c3"}}
		return m
	}
	learner := member("learner", forager.RoleLearner)
	learner.Epoch, learner.Policy = 2, version(19)
	actor := member("actor", forager.RoleActor)
	actor.Policy, actor.PolicySeconds, actor.Credits = version(19), 4, 6
	table := member("replay", forager.RoleReplay)
	table.Table = &cluster.Table{Groups: 40, Capacity: 4096}
	retriever := member("retriever", forager.RoleRetriever)
	retriever.Addresses = map[string]string{serviceRetriever: "http://retriever:8000"}
	return Status{
		Run: "trial", Time: now, Bus: "nats://bus:4222", Errors: map[string]string{},
		Members: []cluster.Member{node("c1"), node("c2"), node("c3"), table, member("labels", forager.RoleRewardServer), retriever, learner, actor},
		Streams: []StreamStatus{
			{Name: string(bus.Credits), Waiting: 16, Held: 6, Messages: 22, MaxMessages: 1000},
			{Name: string(bus.Rollouts), Messages: 3}, {Name: string(bus.Digests), Waiting: 5}, {Name: string(bus.Annotations)}, {Name: objectStore},
		},
		expects: expectation{retriever: true, judge: true},
	}
}

// agreed is what the cluster of the healthy run answers.
func agreed() cluster.State {
	now := healthy().Time
	return cluster.State{
		Lease:    cluster.Lease{Holder: "learner", Epoch: 2, Expires: now.Add(3 * time.Second)},
		Manifest: &forager.Manifest{Version: 19, Step: 19, Epoch: 2, Bytes: 1 << 20, Time: now.Add(-10 * time.Second)},
	}
}

// without takes members away.
func without(s *Status, names ...string) {
	s.Members = slices.DeleteFunc(s.Members, func(m cluster.Member) bool { return slices.Contains(names, m.Name) })
}

func find(s *Status, name string) *cluster.Member {
	for i := range s.Members {
		if s.Members[i].Name == name {
			return &s.Members[i]
		}
	}
	return nil
}

// TestFindings breaks a healthy run in one way after the other: each is told in
// words, and nothing else is.
func TestFindings(t *testing.T) {
	fill := func(name bus.Stream, share float64) func(*Status, *cluster.State) {
		return func(s *Status, _ *cluster.State) { s.stream(name).Fill = share }
	}
	old := forager.Version(12)
	found := map[string]bool{}
	for name, c := range map[string]struct {
		damage func(*Status, *cluster.State)
		want   []string // rule: text
	}{
		"nothing": {func(*Status, *cluster.State) {}, nil},
		"no bus": {func(s *Status, _ *cluster.State) {
			*s = Status{Run: s.Run, Bus: s.Bus, Time: s.Time, Errors: map[string]string{askedBus: "refused"}, expects: s.expects}
		}, []string{"bus-away: the bus at nats://bus:4222 cannot be asked: refused"}},
		"other run": {func(s *Status, _ *cluster.State) {
			*s = Status{Run: s.Run, Bus: s.Bus, Time: s.Time, unknown: true, expects: s.expects,
				Errors: map[string]string{askedMembers: "not found", askedCluster: "nobody", string(bus.Credits): "not found"}}
		}, []string{"unknown-run: the bus at nats://bus:4222 has nothing of run trial"}},
		"unread": {func(s *Status, _ *cluster.State) {
			s.Errors[string(bus.Rollouts)], s.Errors[objectStore] = "slow", "slower"
		}, []string{"unread: the object store could not be read: slower", "unread: the rollouts stream could not be read: slow"}},
		"no list": {func(s *Status, _ *cluster.State) {
			s.Members, s.Errors[askedMembers] = nil, "slow"
		}, []string{"unread: the list of processes could not be read: slow"}},
		"cluster does not answer": {func(s *Status, _ *cluster.State) {
			s.Errors[askedCluster] = "no leader"
		}, []string{"cluster-away: the Raft group does not answer: no leader"}},
		"one node lost": {func(s *Status, _ *cluster.State) { without(s, "c3") },
			[]string{"voters-missing: 2 of 3 cluster nodes answer: one more loss stops publishing (silent: c3)"}},
		"one of five lost": {func(s *Status, _ *cluster.State) {
			for _, name := range []string{"c1", "c2", "c3"} {
				find(s, name).Raft.Voters = []string{"c1", "c2", "c3", "c4", "c5"}
			}
			c4 := *find(s, "c1")
			c4.Name, c4.Raft = "c4", &cluster.View{Node: "c4", Leader: "c1", Term: 3}
			s.Members = append(s.Members, c4)
		}, []string{"voters-missing: 4 of 5 cluster nodes answer: 2 more losses stop publishing (silent: c5)"}},
		"one node cut off from the others": {func(s *Status, _ *cluster.State) { find(s, "c2").Raft = &cluster.View{Node: "c2", Term: 9} },
			[]string{"voters-missing: 2 of 3 cluster nodes answer: one more loss stops publishing (silent: c2)"}},
		"one node removed": {func(s *Status, _ *cluster.State) {
			find(s, "c1").Raft.Voters, find(s, "c2").Raft.Voters = []string{"c1", "c2"}, []string{"c1", "c2"}
			find(s, "c3").Raft.Leader = "" // nobody tells it
		}, []string{"no-vote: cluster node c3 runs without a vote"}},
		"two nodes lost": {func(s *Status, _ *cluster.State) { without(s, "c1", "c3") },
			[]string{"no-quorum: 1 of 3 cluster nodes answer, 2 are needed: nothing can be published (silent: c1, c3)"}},
		"versions": {func(s *Status, _ *cluster.State) { find(s, "actor").Version = "v0" },
			[]string{"versions-differ: programs of different versions: v1 (7), v0 (1)"}},
		"lease free": {func(_ *Status, c *cluster.State) { c.Lease = cluster.Lease{Epoch: 2} },
			[]string{"no-learner: no learner holds the lease"}},
		"learner killed": {func(s *Status, _ *cluster.State) { without(s, "learner") },
			[]string{"learner-silent: learner learner holds the lease and gives no sign of life; the lease runs out in 3.0s"}},
		"learner killed long ago": {func(s *Status, c *cluster.State) {
			without(s, "learner")
			c.Lease.Expires = s.Time.Add(-time.Minute)
		}, []string{"learner-silent: learner learner holds the lease and gives no sign of life; the lease ran out 60s ago"}},
		"slow learner": {func(s *Status, c *cluster.State) { c.Lease.Expires = s.Time.Add(-time.Minute) }, nil},
		"no actor": {func(s *Status, _ *cluster.State) { without(s, "actor") },
			[]string{"no-actor: no actor is running: 16 credits wait"}},
		"no retriever": {func(s *Status, _ *cluster.State) { without(s, "retriever") },
			[]string{"no-retriever: no retriever is running: 1 actor processes need one"}},
		"retriever elsewhere": {func(s *Status, _ *cluster.State) { without(s, "retriever"); s.expects.retriever = false }, nil},
		"no replay": {func(s *Status, _ *cluster.State) { without(s, "replay") },
			[]string{"no-replay: replay is not running: 3 batches of rollouts wait for it"}},
		"no reward server": {func(s *Status, _ *cluster.State) { without(s, "labels") },
			[]string{"no-reward-server: no reward server is running: 5 messages wait for labels"}},
		"no judge wanted": {func(s *Status, _ *cluster.State) { without(s, "labels"); s.expects.judge = false }, nil},
		"judge away": {func(s *Status, _ *cluster.State) {
			find(s, "labels").Waits = []cluster.Wait{{Role: forager.RoleRewardServer, What: waitJudge, Seconds: 130}}
		}, []string{"judge-away: rewardsrv labels has waited 2m for a judge that answers"}},
		"actor stuck": {func(s *Status, _ *cluster.State) { find(s, "actor").Policy, find(s, "actor").PolicySeconds = &old, 60 },
			[]string{"actor-behind: actor actor plays version 12, current is 19"}},
		"actor behind a fast learner": {func(s *Status, _ *cluster.State) { find(s, "actor").Policy = &old }, nil},
		"new weights after a long step": {func(s *Status, c *cluster.State) {
			last := forager.Version(18)
			find(s, "actor").Policy, find(s, "actor").PolicySeconds = &last, 300
		}, nil},
		"weights not taken for long": {func(s *Status, c *cluster.State) {
			last := forager.Version(18)
			find(s, "actor").Policy, find(s, "actor").PolicySeconds = &last, 300
			c.Manifest.Time = s.Time.Add(-2 * time.Minute)
		}, []string{"actor-behind: actor actor plays version 18, current is 19"}},
		"idle": {func(s *Status, _ *cluster.State) {
			find(s, "actor").Waits = []cluster.Wait{{Role: forager.RoleActor, What: waitCredits, Seconds: 1e5}}
		}, nil},
		"stuck": {func(s *Status, _ *cluster.State) {
			find(s, "actor").Waits = []cluster.Wait{{Role: forager.RoleActor, What: waitWeights, Seconds: 90}}
		}, []string{"stuck: actor actor has waited 90s for the first weights"}},
		"rollouts full":    {fill(bus.Rollouts, 0.975), []string{"rollouts-full: the rollouts stream is 97 % full: replay is not taking them"}},
		"rollouts filling": {fill(bus.Rollouts, 0.89), nil},
		"credits full":     {fill(bus.Credits, 1), []string{"credits-full: the credits stream is 100 % full: the learner cannot issue more"}},
		"annotations full": {fill(bus.Annotations, 0.9), []string{"annotations-full: the annotations stream is 90 % full: labels will be refused"}},
		"objects full":     {fill(objectStore, 0.95), []string{"objects-full: the object store is 95 % full: weights will be refused"}},
		"digests full":     {fill(bus.Digests, 0.99), []string{"digests-full: the digests stream is 99 % full: the oldest turns go without labels"}},
		"table full":       {func(s *Status, _ *cluster.State) { find(s, "replay").Table.Groups = 4000 }, []string{"replay-full: replay holds 4000 of 4096 groups: the oldest are given up"}},
		"damage":           {func(s *Status, _ *cluster.State) { find(s, "replay").Table.Corrupt = 2 }, []string{"replay-damage: replay could not read 2 stored batches since it was started"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, state := healthy(), agreed()
			c.damage(&s, &state)
			if s.Errors[askedBus] == "" {
				s.combine(state)
			}
			s.judge()
			var got []string
			wrong := 0
			for _, f := range s.Findings {
				got = append(got, f.Rule+": "+f.Says)
				found[f.Rule] = true
				if f.Level == LevelWrong {
					wrong++
				}
				if f.Do == "" || strings.ContainsAny(f.Says, "{}") {
					t.Errorf("finding %+v is unfinished", f)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
			if s.Healthy != (wrong == 0) || s.Wrong() != wrong {
				t.Errorf("healthy %v with %d wrong, %d counted", s.Healthy, wrong, s.Wrong())
			}
		})
	}
	for _, r := range rules() {
		if !found[r.name] {
			t.Errorf("rule %s is never found: add the damage that it finds", r.name)
		}
	}
}

// TestFillingKeepsBraces: text from outside cannot take the place of a word.
func TestFillingKeepsBraces(t *testing.T) {
	if got := (filling{"{b}", "2"}).says("{a} and {b}"); got != "(b) and 2" {
		t.Error(got)
	}
}

// TestStatusPage: docs/status.md has every rule with the words of the code.
func TestStatusPage(t *testing.T) {
	data, err := os.ReadFile("../docs/status.md")
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	want.WriteString("| finding | level | what it says | what to do |\n|---|---|---|---|\n")
	for _, r := range rules() {
		fmt.Fprintf(&want, "| `%s` | %s | %s | %s |\n", r.name, r.level, r.says, r.do)
	}
	if !strings.Contains(string(data), want.String()+"\n") {
		t.Errorf("docs/status.md needs this table:\n%s", want.String())
	}
}

func TestElapsed(t *testing.T) {
	for seconds, want := range map[float64]string{0: "0.0s", 3.14: "3.1s", 59: "59s", 119: "119s", 120: "2m", 3600: "1h00m", 7500: "2h05m", 200000: "2d"} {
		if got := Elapsed(seconds); got != want {
			t.Errorf("%v s: %s, want %s", seconds, got, want)
		}
	}
}
