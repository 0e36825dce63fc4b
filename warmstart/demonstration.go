package warmstart

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/actor"
	"github.com/forager-rl/forager/policy"
	"github.com/forager-rl/forager/policy/lm"
	"github.com/forager-rl/forager/search/worldfacts"
)

// demonstrator plays scripted episodes in invented worlds. It is the policy and
// the retriever of its own player.
type demonstrator struct {
	tokenizer policy.Tokenizer
	player    *actor.Player
	names     *namer
	searches  int // an episode may make

	script []string // actions still to be played
	world  map[string]forager.Passage
}

func newDemonstrator(episode actor.EpisodeConfig, tokenizer policy.Tokenizer, names *namer) (*demonstrator, error) {
	d := &demonstrator{tokenizer: tokenizer, names: names, searches: episode.MaxTurns}
	var err error
	d.player, err = actor.NewPlayer(episode, actor.PlayerDeps{
		Run: "demonstrations", Actor: "script", Generator: d, Tokenizer: tokenizer, Retriever: d,
		Clock: func() time.Time { return time.Time{} },
	})
	return d, err
}

// play gives one demonstration of a stage as a training sequence. The same random source
// gives the same demonstration.
func (d *demonstrator) play(ctx context.Context, random *rand.Rand, stage Stage) (lm.Sequence, error) {
	hops := 1 + random.IntN(stage.MaxHops)
	task, world := d.invent(random, hops)
	searches, answer := d.plan(random, task, world, stage)
	corpus := make(map[string]forager.Passage)
	for _, p := range world.Corpus() {
		corpus[p.ID] = p
	}
	d.script = d.script[:0]
	d.world = make(map[string]forager.Passage, len(searches))
	for _, s := range searches {
		d.world[s.Query] = corpus[s.Passage]
		d.script = append(d.script, Search(s.Query))
	}
	d.script = append(d.script, Answer(answer))
	rollout, _, err := d.player.Play(ctx, task, 0, 0)
	if err != nil {
		return lm.Sequence{}, err
	}
	if len(d.script) > 0 || rollout.Finish != forager.FinishAnswer {
		return lm.Sequence{}, fmt.Errorf("demonstration of %q ended with %s and %d actions left", task.Question, rollout.Finish, len(d.script))
	}
	return lm.Sequence{Tokens: rollout.Tokens, Mask: rollout.LossMask}, nil
}

// plan chooses what a demonstration searches for and what it answers: what the
// last search that went where it should has found.
func (d *demonstrator) plan(random *rand.Rand, task forager.Task, world *worldfacts.World, stage Stage) (searches []worldfacts.Lead, answer string) {
	stop := 1
	for stop < len(task.Decomposition) && random.Float64() >= stage.StopEarly {
		stop++
	}
	var leads map[string][]worldfacts.Lead
	if stage.Astray > 0 {
		leads = world.Leads()
	}
	for found := 0; found < stop && len(searches) < d.searches; {
		hop := task.Decomposition[found]
		right := worldfacts.Lead{Query: hop.Query, Passage: hop.Gold}
		if found > 0 && stage.Astray > 0 && random.Float64() < stage.Astray {
			last := searches[len(searches)-1]
			others := slices.DeleteFunc(append(slices.Clone(leads[last.Passage]), last), func(l worldfacts.Lead) bool { return l.Passage == right.Passage })
			searches = append(searches, others[random.IntN(len(others))])
			continue
		}
		searches = append(searches, right)
		answer = hop.Answer
		if found++; found == len(task.Decomposition) {
			answer = task.Answers[0]
		}
	}
	return searches, answer
}

// Shares of the types of questions among demonstrations of two hops.
const (
	comparisons   = 0.25
	intersections = 0.2
)

// Search and Answer are the actions of a policy that follows the protocol.
func Search(query string) string { return "<search> " + query + " </search>" }

// Answer closes an episode.
func Answer(answer string) string { return "<answer> " + answer + " </answer>" }

// completion is an action as a policy that is sure of it would give it.
func completion(t policy.Tokenizer, action string) policy.Completion {
	ids := t.Encode(action)
	n := int32(len(ids))
	return policy.Completion{
		Tokens: ids, Logprobs: make([]float32, n), Stop: policy.StopString,
		Versions: []forager.VersionSpan{{Span: forager.Span{End: n}}},
	}
}

// invent makes worlds until one has a question with that many hops. Of two hops
// it wants all types of questions, which are not equally frequent.
func (d *demonstrator) invent(random *rand.Rand, hops int) (forager.Task, *worldfacts.World) {
	want, countries := "", 3+random.IntN(6)
	if hops == 2 {
		switch draw := random.Float64(); {
		case draw < comparisons:
			want = worldfacts.TypeComparison
		case draw < comparisons+intersections:
			want = worldfacts.TypeIntersection
			countries += 4
		}
	}
	for try := 0; ; try++ {
		w := worldfacts.Invent(random, countries, d.names.using(random))
		diversify(random, w, d.names)
		var fitting []forager.Task
		for _, t := range w.Questions(worldfacts.Options{MaxHops: hops, Seed: random.Uint64()}) {
			if t.Hops == hops && (want == "" || t.Type == want || try >= 20) {
				fitting = append(fitting, t)
			}
		}
		if len(fitting) > 0 {
			return fitting[random.IntN(len(fitting))], w
		}
	}
}

// Generate implements policy.Generator by playing the script.
func (d *demonstrator) Generate(context.Context, policy.Request) (policy.Completion, error) {
	if len(d.script) == 0 {
		return policy.Completion{}, fmt.Errorf("the script of a demonstration is over")
	}
	action := d.script[0]
	d.script = d.script[1:]
	return completion(d.tokenizer, action), nil
}

// Release implements policy.Generator.
func (d *demonstrator) Release(uint64) {}

// Search implements search.Retriever: it knows the passages of the script.
func (d *demonstrator) Search(_ context.Context, queries []string, _ int) ([][]forager.Passage, error) {
	lists := make([][]forager.Passage, len(queries))
	for i, q := range queries {
		p, ok := d.world[q]
		if !ok {
			return nil, fmt.Errorf("no passage for %q: %w", q, forager.ErrNotFound)
		}
		lists[i] = []forager.Passage{p}
	}
	return lists, nil
}
