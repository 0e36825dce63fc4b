package node

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/cluster"
)

const (
	fullShare   = 0.9              // of a limit: from here on a stream counts as full
	stuckPolicy = 30 * time.Second // an actor that has not taken newer weights for this long is stuck
	stuckWait   = time.Minute      // a role that has waited for this long is stuck
	bearable    = 1                // versions that an actor may be behind while newer ones come fast
)

// rules lists them in the order in which their findings are told: what explains
// the others first.
func rules() []rule {
	return append(groupRules(), append(workRules(), streamRules()...)...)
}

// groupRules are about the bus, the Raft group and who is there.
func groupRules() []rule {
	return []rule{
		{
			"bus-away", LevelWrong, "the bus at {url} cannot be asked: {error}",
			"start it with: forager nats; until it is back everything waits and nothing is lost",
			func(s *Status) []filling { return once(s.Errors[askedBus] != "", s.Bus, s.Errors[askedBus]) },
		},
		{
			"unknown-run", LevelWrong, "the bus at {url} has nothing of run {run}",
			"check --run and --nats; if both are right, start the nats and cluster roles of the run",
			func(s *Status) []filling { return once(s.unknown, s.Bus, s.Run) },
		},
		{
			"unread", LevelWrong, "the {thing} could not be read: {error}",
			"ask again; if it stays, look at the log of the nats role",
			unread,
		},
		{
			"cluster-away", LevelWrong, "the Raft group does not answer: {error}",
			"start its nodes with: forager cluster; a majority of the voters must run. Actors go on, but nothing can be published",
			func(s *Status) []filling {
				return once(s.Errors[askedCluster] != "" && !s.unknown, s.Errors[askedCluster])
			},
		},
		{
			"no-quorum", LevelWrong, "{answering} of {voters} cluster nodes answer, {needed} are needed: nothing can be published (silent: {nodes})",
			"start the silent nodes again, each on its own directory; one whose disk is lost is replaced with: forager voters",
			func(s *Status) []filling {
				answer, of, silent := s.Raft.answering()
				return once(of > 0 && answer < of/2+1, answer, of, of/2+1, strings.Join(silent, ", "))
			},
		},
		{
			"voters-missing", LevelWrong, "{answering} of {voters} cluster nodes answer: {losses} publishing (silent: {nodes})",
			"start the silent nodes again, each on its own directory; one whose disk is lost is replaced with: forager voters",
			func(s *Status) []filling {
				answer, of, silent := s.Raft.answering()
				losses := "one more loss stops"
				if spare := answer - (of/2 + 1); spare > 0 {
					losses = fmt.Sprintf("%d more losses stop", spare+1)
				}
				return once(answer < of && answer >= of/2+1, answer, of, losses, strings.Join(silent, ", "))
			},
		},
		{
			"no-vote", LevelNote, "cluster node {node} runs without a vote",
			"count on it with: forager voters add; one that was removed can be stopped, it does not come back by itself",
			voteless,
		},
		{
			"versions-differ", LevelWrong, "programs of different versions: {versions}",
			"bring all processes to one version; while an update rolls out this is expected",
			func(s *Status) []filling {
				versions := s.Versions()
				return once(len(versions) > 1, strings.Join(versions, ", "))
			},
		},
	}
}

// unread lists what could not be asked and has no rule of its own.
func unread(s *Status) []filling {
	if s.unknown {
		return nil
	}
	var list []filling
	for _, name := range slices.Sorted(maps.Keys(s.Errors)) {
		switch name {
		case askedBus, askedCluster:
		case askedMembers:
			list = append(list, filling{"list of processes", s.Errors[name]})
		case objectStore:
			list = append(list, filling{"object store", s.Errors[name]})
		default:
			list = append(list, filling{name + " stream", s.Errors[name]})
		}
	}
	return list
}

// workRules are about who does the work of a run.
func workRules() []rule {
	return []rule{
		{
			"no-learner", LevelWrong, "no learner holds the lease",
			"start one with: forager learner; a run that is finished needs none",
			func(s *Status) []filling { return once(s.Lease != nil && s.Lease.Holder == "") },
		},
		{
			"learner-silent", LevelWrong, "learner {name} holds the lease and gives no sign of life; the lease {ends}",
			"a learner that stands by takes over when it has run out; start one with: forager learner",
			func(s *Status) []filling {
				l := s.Lease
				if l == nil || l.Holder == "" || !s.listed() || s.member(l.Holder) {
					return nil
				}
				ends := "runs out in " + Elapsed(l.RemainingSeconds)
				if l.RemainingSeconds < 0 {
					ends = "ran out " + Elapsed(-l.RemainingSeconds) + " ago"
				}
				return once(true, l.Holder, ends)
			},
		},
		{
			"no-actor", LevelWrong, "no actor is running: {credits} credits wait",
			"start one with: forager actor",
			func(s *Status) []filling {
				return once(s.Credits != nil && s.Credits.Actors == 0, value(s.Credits).Waiting)
			},
		},
		{
			"no-retriever", LevelWrong, "no retriever is running: {actors} actor processes need one",
			"start one with: forager retriever; or name another with search.client.url",
			func(s *Status) []filling {
				there := slices.ContainsFunc(s.Members, func(m cluster.Member) bool { return m.Addresses[serviceRetriever] != "" })
				actors := value(s.Credits).Actors
				return once(s.expects.retriever && !there && actors > 0, actors)
			},
		},
		{
			"no-replay", LevelWrong, "replay is not running: {groups} batches of rollouts wait for it",
			"start it with: forager replay; until it is back actors pause once the rollouts stream is full",
			func(s *Status) []filling {
				return once(s.listed() && !s.has(forager.RoleReplay), value(s.stream(bus.Rollouts)).Messages)
			},
		},
		{
			"no-reward-server", LevelWrong, "no reward server is running: {digests} messages wait for labels",
			"start one with: forager rewardsrv; or set judge.judge to none. Learning goes on without labels",
			func(s *Status) []filling {
				return once(s.expects.judge && s.listed() && s.Labels.Servers == 0, s.Labels.Digests)
			},
		},
		{
			"judge-away", LevelWrong, "{role} {name} has waited {time} for {judge}",
			"look at its log and at the judge's endpoint; learning goes on without new labels",
			func(s *Status) []filling { return s.waits(0, waitJudge) },
		},
		{
			"actor-behind", LevelWrong, "actor {name} plays version {version}, current is {current}",
			"look at its log for weights that were not refreshed; restart it if nothing helps",
			behind,
		},
		{
			"stuck", LevelWrong, "{role} {name} has waited {time} for {thing}",
			"start what it needs, or look at its log",
			func(s *Status) []filling { return s.waits(stuckWait, waitStart, waitCluster, waitWeights) },
		},
	}
}

// streamRules are about what fills up.
func streamRules() []rule {
	full := func(name string) func(*Status) []filling {
		return func(s *Status) []filling {
			fill := value(s.stream(bus.Stream(name))).Fill
			return once(fill >= fullShare, int(100*fill))
		}
	}
	return []rule{
		{
			"rollouts-full", LevelWrong, "the rollouts stream is {share} % full: replay is not taking them",
			"look at the log of replay; actors pause meanwhile and lose nothing",
			full(string(bus.Rollouts)),
		},
		{
			"credits-full", LevelWrong, "the credits stream is {share} % full: the learner cannot issue more",
			"start more actors, or raise bus.max_credits",
			full(string(bus.Credits)),
		},
		{
			"annotations-full", LevelWrong, "the annotations stream is {share} % full: labels will be refused",
			"raise bus.max_annotations and start the nats role again",
			full(string(bus.Annotations)),
		},
		{
			"objects-full", LevelWrong, "the object store is {share} % full: weights will be refused",
			"raise bus.max_objects and start the nats role again",
			full(objectStore),
		},
		{
			"digests-full", LevelNote, "the digests stream is {share} % full: the oldest turns go without labels",
			"start more reward servers or faster judges, if labels are worth it",
			full(string(bus.Digests)),
		},
		{
			"replay-full", LevelNote, "replay holds {groups} of {limit} groups: the oldest are given up",
			"fewer actors would do: the learner is the bottleneck",
			func(s *Status) []filling {
				held, limit := value(s.Replay).Groups, value(s.Replay).Capacity
				return once(limit > 0 && float64(held) >= fullShare*float64(limit), held, limit)
			},
		},
		{
			"replay-damage", LevelNote, "replay could not read {batches} stored batches since it was started",
			"look at its log and at the disk; their credits were returned and the run goes on",
			func(s *Status) []filling {
				damaged := value(s.Replay).Corrupt
				return once(damaged > 0, damaged)
			},
		},
	}
}
