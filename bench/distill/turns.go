package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/rewardsrv"
	"github.com/forager-rl/forager/rewardsrv/rewardmodel"
	"github.com/forager-rl/forager/rewardsrv/rubric"
	"github.com/forager-rl/forager/search"
	"github.com/forager-rl/forager/search/protocol"
)

// turn is one search with its label.
type turn struct {
	question int // index of its task
	example  rewardmodel.Example
	label    float64 // 1 when a passage is gold, else 0
	bm25     float64 // score of the best passage
	astray   bool    // the query is about another question
}

// player makes turns as policies of all qualities would: it asks good, clumsy
// and pointless queries and shows what the index finds.
type player struct {
	tasks     []forager.Task
	others    []forager.Task // where pointless queries come from
	retriever search.Retriever
	style     protocol.Style
	maxBytes  int // of an observation's passages
}

// way is how a query is made, "" when it does not apply to a task. It may look
// at passages found with the question itself.
type way struct {
	astray bool
	query  func(p *player, t forager.Task, found []forager.Passage, rng *rand.Rand) string
}

// ways are equally frequent.
var ways = []way{
	{query: func(_ *player, t forager.Task, _ []forager.Passage, _ *rand.Rand) string { return t.Question }},
	{query: func(_ *player, t forager.Task, _ []forager.Passage, rng *rand.Rand) string {
		words := strings.Fields(t.Question)
		if rng.IntN(2) == 0 {
			return strings.Join(words[:len(words)/2], " ")
		}
		return strings.Join(words[len(words)/2:], " ")
	}},
	{query: func(_ *player, t forager.Task, _ []forager.Passage, rng *rand.Rand) string {
		return some(t.Question, 2+rng.IntN(4), rng)
	}},
	{query: func(_ *player, t forager.Task, _ []forager.Passage, rng *rand.Rand) string {
		return pick(names.FindAllString(t.Question, -1), rng)
	}},
	{query: func(_ *player, t forager.Task, _ []forager.Passage, rng *rand.Rand) string {
		return pick(t.GoldTitles, rng)
	}},
	{query: func(_ *player, t forager.Task, _ []forager.Passage, rng *rand.Rand) string {
		return pick(t.GoldTitles, rng) + " " + some(t.Question, 2, rng)
	}},
	{query: func(_ *player, t forager.Task, _ []forager.Passage, rng *rand.Rand) string { return hop(t, rng) }},
	{query: func(_ *player, _ forager.Task, found []forager.Passage, rng *rand.Rand) string {
		return found[rng.IntN(len(found))].Title
	}},
	{query: func(_ *player, _ forager.Task, found []forager.Passage, rng *rand.Rand) string {
		return pick(names.FindAllString(found[rng.IntN(len(found))].Text, -1), rng)
	}},
	{astray: true, query: func(p *player, _ forager.Task, _ []forager.Passage, rng *rand.Rand) string {
		return p.other(rng).Question
	}},
	{astray: true, query: func(p *player, _ forager.Task, _ []forager.Passage, rng *rand.Rand) string {
		return pick(p.other(rng).GoldTitles, rng)
	}},
	{astray: true, query: func(p *player, t forager.Task, _ []forager.Passage, rng *rand.Rand) string {
		return some(t.Question, 1, rng) + " " + some(p.other(rng).Question, 2, rng)
	}},
}

// names are runs of capitalised words.
var names = regexp.MustCompile(`\p{Lu}[\p{L}\d'’.-]*(?: (?:of |the |and |de )?\p{Lu}[\p{L}\d'’.-]*)*`)

// hop asks one hop of the decomposition, earlier answers filled in.
func hop(t forager.Task, rng *rand.Rand) string {
	if len(t.Decomposition) == 0 {
		return ""
	}
	query := t.Decomposition[rng.IntN(len(t.Decomposition))].Question
	for i, earlier := range t.Decomposition {
		query = strings.ReplaceAll(query, "#"+strconv.Itoa(i+1), earlier.Answer)
	}
	return query
}

// playAll plays n turns of every task.
func (p *player) playAll(ctx context.Context, n int, rng *rand.Rand) ([]turn, error) {
	var all []turn
	for i := range p.tasks {
		turns, err := p.play(ctx, i, n, rng)
		if err != nil {
			return nil, err
		}
		all = append(all, turns...)
	}
	return all, nil
}

// play makes n turns of a task, each showing 1 to 3 passages.
func (p *player) play(ctx context.Context, question, n int, rng *rand.Rand) ([]turn, error) {
	task := p.tasks[question]
	seen, err := p.search(ctx, task.Question, 10)
	if err != nil {
		return nil, err
	}
	if len(seen) == 0 {
		return nil, fmt.Errorf("nothing is found with the question of task %s", task.ID)
	}
	turns := make([]turn, 0, n)
	for len(turns) < n {
		way := ways[rng.IntN(len(ways))]
		query := strings.TrimSpace(way.query(p, task, seen, rng))
		if query == "" {
			continue
		}
		found, err := p.search(ctx, query, 1+rng.IntN(3))
		if err != nil {
			return nil, err
		}
		t := turn{question: question, astray: way.astray, example: rewardmodel.Example{
			Question: task.Question, Query: query, Observation: p.observation(found),
		}}
		if t.label, err = label(ctx, task, query, found); err != nil {
			return nil, err
		}
		for _, passage := range found {
			t.bm25 = max(t.bm25, passage.Score)
		}
		turns = append(turns, t)
	}
	return turns, nil
}

func (p *player) search(ctx context.Context, query string, k int) ([]forager.Passage, error) {
	lists, err := p.retriever.Search(ctx, []string{query}, k)
	if err != nil {
		return nil, err
	}
	return lists[0], nil
}

// label asks the rule judge.
func label(ctx context.Context, task forager.Task, query string, found []forager.Passage) (float64, error) {
	item := rubric.Item{Task: task, Question: task.Question, Step: rubric.Step{Query: query, Passages: found}}
	verdict, err := rewardsrv.NewRuleJudge().Label(ctx, item)
	if err != nil {
		return 0, fmt.Errorf("judge: %w", err)
	}
	return verdict.Value, nil
}

// observation is what an actor shows: the passages are cut, their tags stay.
func (p *player) observation(found []forager.Passage) string {
	open, rest, _ := strings.Cut(protocol.Observation(found, p.style), protocol.OpenInformation)
	body, shut, _ := strings.Cut(rest, protocol.CloseInformation)
	return open + protocol.OpenInformation + body[:min(len(body), p.maxBytes)] + protocol.CloseInformation + shut
}

func (p *player) other(rng *rand.Rand) forager.Task { return p.others[rng.IntN(len(p.others))] }

func pick(from []string, rng *rand.Rand) string {
	if len(from) == 0 {
		return ""
	}
	return from[rng.IntN(len(from))]
}

// some picks n words of a text, in any order.
func some(text string, n int, rng *rand.Rand) string {
	words := strings.Fields(text)
	rng.Shuffle(len(words), func(i, j int) { words[i], words[j] = words[j], words[i] })
	return strings.Join(words[:min(n, len(words))], " ")
}
