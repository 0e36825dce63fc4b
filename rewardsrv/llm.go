package rewardsrv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/rewardsrv/judge"
	"github.com/forager-rl/forager/rewardsrv/rubric"
)

const (
	rubricInterval = 5 * time.Second // between looks at a rubric's file
	maxAnswerBytes = 4 << 10         // of a raw answer that a label keeps
)

// LLMJudge asks a pool of OpenAI-compatible endpoints by a rubric. Several share
// one pool.
type LLMJudge struct {
	source  string
	rubric  *rubric.Watcher
	pool    *judge.Pool
	options rubric.PromptOptions

	mu  sync.Mutex
	rng *rand.Rand
}

// NewLLMJudge makes a judge whose labels are published under the rubric's name.
// The random source draws fences and label words; it ought to be unpredictable
// and is used by this judge alone.
func NewLLMJudge(w *rubric.Watcher, pool *judge.Pool, o rubric.PromptOptions, rng *rand.Rand) *LLMJudge {
	return &LLMJudge{source: w.Current().Name, rubric: w, pool: pool, options: o, rng: rng}
}

// Source is the name that the rubric had at first.
func (j *LLMJudge) Source() string { return j.source }

// Current is the rubric as it stands.
func (j *LLMJudge) Current() Grader { return llmGrader{j, j.rubric.Current()} }

// Check says whether the endpoints answer, or why not.
func (j *LLMJudge) Check(ctx context.Context) error { return j.pool.Check(ctx) }

// Run reloads the rubric when its file changes, until ctx is done.
func (j *LLMJudge) Run(ctx context.Context) { j.rubric.Run(ctx) }

// Capacity is how many calls the endpoints take now.
func (j *LLMJudge) Capacity() int { return j.pool.Capacity() }

// llmGrader is an LLMJudge with one version of its rubric.
type llmGrader struct {
	*LLMJudge
	asked *rubric.Rubric
}

// Judge is the model after "llm:".
func (g llmGrader) Judge() string { return "llm:" + g.pool.Model() }

// Rubric is the version.
func (g llmGrader) Rubric() string { return g.asked.Version() }

// Unit is the rubric's.
func (g llmGrader) Unit() rubric.Unit { return g.asked.Unit() }

// History is the rubric's.
func (g llmGrader) History() bool { return g.asked.History() }

// Label asks once; the pool has its own retries.
func (g llmGrader) Label(ctx context.Context, item rubric.Item) (Verdict, error) {
	g.mu.Lock()
	p := g.asked.Prompt(item, g.options, g.rng)
	g.mu.Unlock()
	answer, err := g.pool.Ask(ctx, judge.Request{System: p.System, User: p.User, Schema: p.Schema})
	v := Verdict{Judgement: forager.Judgement{
		Model: answer.Model, Endpoint: answer.Endpoint, PromptDigest: p.Digest, Answer: cut(answer.Text, maxAnswerBytes),
		PromptTokens: answer.PromptTokens, CompletionTokens: answer.CompletionTokens,
	}}
	if errors.Is(err, judge.ErrUnusable) {
		return v, fmt.Errorf("%w: %w", ErrUnusable, err)
	} else if err != nil {
		return v, err
	}
	said, err := p.Parse(answer.Text)
	if err != nil {
		return v, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	v.Value, v.Rationale = said.Value, explain(said)
	return v, nil
}

// explain is the rationale, after the parts of a verdict that has several: what
// the words of the raw answer stood for is known to nobody later.
func explain(v rubric.Verdict) string {
	if len(v.Details) < 2 {
		return v.Rationale
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(v.Details)) {
		parts = append(parts, name+": "+v.Details[name])
	}
	return strings.Join(parts, "; ") + ". " + v.Rationale
}

// cut gives valid text of at most n bytes.
func cut(text string, n int) string {
	return strings.ToValidUTF8(text[:min(len(text), n)], "")
}

// NewJudges makes the judges that the settings name. Of deps it uses the logger,
// the registerer, the clock and the random source.
func NewJudges(c Config, deps Deps) ([]Judge, error) {
	switch c.Judge {
	case JudgeNone:
		return nil, errors.New("reward server: judge is none, so there is nothing to run")
	case JudgeRule:
		return []Judge{fixed{c.Source, NewRuleJudge()}}, nil
	}
	pool, err := judge.New(c.LLM, judge.Deps{Logger: deps.Logger, Registerer: deps.Registerer, Now: deps.Now, Random: split(deps.Random)})
	if err != nil {
		return nil, fmt.Errorf("reward server: llm: %w", err)
	}
	options := rubric.PromptOptions{
		MaxPassageChars: c.MaxPassageChars, ShowGold: c.ShowGold, Structured: c.LLM.StructuredOutput != judge.StructuredOff,
	}
	var judges []Judge
	sources := map[string]string{}
	for _, name := range c.Rubrics {
		w, err := rubric.NewWatcher(name, rubricInterval, deps.Logger)
		if err != nil {
			return nil, fmt.Errorf("reward server: %w", err)
		}
		j := NewLLMJudge(w, pool, options, split(deps.Random))
		if other, taken := sources[j.Source()]; taken {
			return nil, forager.WithHint(fmt.Errorf("reward server: rubrics %s and %s are both named %s", other, name, j.Source()),
				"give one of them another name: it is the reward source of its labels")
		}
		sources[j.Source()] = name
		judges = append(judges, j)
	}
	return judges, nil
}

// fixed is a judge that never changes.
type fixed struct {
	source string
	Grader
}

// Source is the reward source.
func (f fixed) Source() string { return f.source }

// Current is always the same.
func (f fixed) Current() Grader { return f.Grader }
