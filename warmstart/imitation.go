package warmstart

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/actor"
	"github.com/forager-rl/forager/policy"
	"github.com/forager-rl/forager/policy/lm"
	"github.com/forager-rl/forager/search"
)

// ImitationConfig is the recipe by which a policy that exists learns the protocol
// from questions with known evidence.
type ImitationConfig struct {
	// Epochs is how often each demonstration is learned from.
	Epochs int `mapstructure:"epochs"`
	// BatchTokens is the size of an update.
	BatchTokens int `mapstructure:"batch_tokens"`
	// LearningRate is the peak; it rises over the first WarmupSteps updates and
	// falls by half a cosine to a tenth at the end.
	LearningRate float64 `mapstructure:"learning_rate"`
	WarmupSteps  int     `mapstructure:"warmup_steps"`
	// Limit bounds the number of demonstrations; 0 means one for every question
	// that allows one.
	Limit int `mapstructure:"limit"`
}

// DefaultImitationConfig suits a checkpoint of about a hundred million
// parameters and a thousand questions.
func DefaultImitationConfig() ImitationConfig {
	return ImitationConfig{Epochs: 1, BatchTokens: 8192, LearningRate: 1e-4, WarmupSteps: 10}
}

// Validate reports the first setting out of range.
func (c ImitationConfig) Validate() error {
	switch {
	case c.Epochs < 1:
		return fmt.Errorf("epochs is %d, want at least 1", c.Epochs)
	case c.BatchTokens < 1:
		return fmt.Errorf("batch_tokens is %d, want at least 1", c.BatchTokens)
	case c.LearningRate <= 0:
		return fmt.Errorf("learning_rate is %g, want more than 0", c.LearningRate)
	case c.WarmupSteps < 0:
		return fmt.Errorf("warmup_steps is %d, want 0 or more", c.WarmupSteps)
	case c.Limit < 0:
		return fmt.Errorf("limit is %d, want 0 or more", c.Limit)
	}
	return nil
}

// Practice is what demonstrations are played with.
type Practice struct {
	Tasks     []forager.Task // with GoldTitles; others are passed over
	Retriever search.Retriever
	Tokenizer policy.Tokenizer
	// NewPlayer makes the player of real episodes for another policy and
	// retriever, so that demonstrations look exactly like rollouts.
	NewPlayer func(policy.Generator, search.Retriever) (*actor.Player, error)
}

// Imitation says what came of a warm start by imitation.
type Imitation struct {
	Demonstrations int // learned from
	Tokens         int // of all of them together
	// Passed counts the questions without a demonstration: a gold title that
	// neither the question nor an earlier passage names, a passage that its title
	// does not find, or an answer that no passage holds.
	Passed int
}

// Imitate plays a demonstration of every task that allows one and trains on
// them. A demonstration searches for the titles of the gold passages, each as
// soon as the question or a passage has named it, and then answers: it never
// does what a reader of the same episode could not have known to do.
func Imitate(ctx context.Context, cfg ImitationConfig, seed uint64, trainer *lm.Trainer, p Practice, report func(Progress)) (Imitation, error) {
	if err := cfg.Validate(); err != nil {
		return Imitation{}, fmt.Errorf("warm start: %w", err)
	}
	played, err := p.demonstrations(ctx)
	if err != nil {
		return Imitation{}, fmt.Errorf("warm start: %w", err)
	}
	done := Imitation{Passed: len(p.Tasks) - len(played)}
	if cfg.Limit > 0 && len(played) > cfg.Limit {
		played = played[:cfg.Limit]
	}
	done.Demonstrations = len(played)
	if len(played) == 0 {
		return done, forager.WithHint(fmt.Errorf("warm start: none of %d questions allows a demonstration", len(p.Tasks)),
			"questions need gold_titles that occur in the corpus")
	}
	for _, s := range played {
		done.Tokens += len(s.Tokens)
	}
	f := &fit{
		trainer: trainer, learningRate: cfg.LearningRate, warmupSteps: cfg.WarmupSteps,
		total: cfg.Epochs * done.Tokens, report: report, start: time.Now(),
	}
	for epoch := range cfg.Epochs {
		random := rand.New(rand.NewPCG(seed, uint64(epoch)))
		random.Shuffle(len(played), func(i, j int) { played[i], played[j] = played[j], played[i] })
		for rest := played; len(rest) > 0; {
			if err := ctx.Err(); err != nil {
				return done, err
			}
			n, tokens := 0, 0
			for n < len(rest) && (n == 0 || tokens+len(rest[n].Tokens) <= cfg.BatchTokens) {
				tokens += len(rest[n].Tokens)
				n++
			}
			if err := f.update(epoch, rest[:n]); err != nil {
				return done, fmt.Errorf("warm start: %w", err)
			}
			rest = rest[n:]
		}
	}
	return done, nil
}

// demonstrations plays all tasks on all cores, in the order of the tasks.
func (p Practice) demonstrations(ctx context.Context) ([]lm.Sequence, error) {
	all := make([]lm.Sequence, len(p.Tasks))
	errs := make([]error, len(p.Tasks))
	workers := runtime.GOMAXPROCS(0)
	var wait sync.WaitGroup
	for w := range workers {
		wait.Go(func() {
			for i := w; i < len(p.Tasks); i += workers {
				all[i], errs[i] = p.demonstrate(ctx, p.Tasks[i])
			}
		})
	}
	wait.Wait()
	var played []lm.Sequence
	for i, s := range all {
		if errs[i] != nil && !errors.Is(errs[i], errNoDemonstration) {
			return nil, fmt.Errorf("demonstrate task %s: %w", p.Tasks[i].ID, errs[i])
		}
		if errs[i] == nil {
			played = append(played, s)
		}
	}
	return played, nil
}

func (p Practice) demonstrate(ctx context.Context, task forager.Task) (lm.Sequence, error) {
	d := &reader{practice: p, task: task}
	for _, title := range task.GoldTitles {
		if !slices.ContainsFunc(d.wanted, called(title)) {
			d.wanted = append(d.wanted, title)
		}
	}
	if len(d.wanted) == 0 {
		return lm.Sequence{}, errNoDemonstration
	}
	player, err := p.NewPlayer(d, d)
	if err != nil {
		return lm.Sequence{}, err
	}
	rollout, _, err := player.Play(ctx, task, 0, 0)
	switch {
	case err != nil:
		return lm.Sequence{}, err
	case rollout.Finish == forager.FinishRetriever:
		return lm.Sequence{}, errors.Join(errors.New("the retriever failed"), d.failed)
	case rollout.Finish != forager.FinishAnswer: // the episode's bounds were too narrow
		return lm.Sequence{}, errNoDemonstration
	}
	return lm.Sequence{Tokens: rollout.Tokens, Mask: rollout.LossMask}, nil
}

// errNoDemonstration says that a question cannot be demonstrated.
var errNoDemonstration = errors.New("no demonstration")

// reader demonstrates one question: it is the policy of its own player, and
// looks at what the retriever finds.
type reader struct {
	practice Practice
	task     forager.Task
	wanted   []string // gold titles not yet found
	asked    string   // the title last searched for
	failed   error
}

// Generate implements policy.Generator by the next action.
func (d *reader) Generate(_ context.Context, req policy.Request) (policy.Completion, error) {
	action, err := d.next(strings.ToLower(d.practice.Tokenizer.Decode(req.Context)))
	if err != nil {
		return policy.Completion{}, err
	}
	return completion(d.practice.Tokenizer, action), nil
}

// Release implements policy.Generator.
func (d *reader) Release(uint64) {}

// next is the action after what was shown so far, in lower case.
func (d *reader) next(shown string) (string, error) {
	if slices.ContainsFunc(d.wanted, called(d.asked)) {
		return "", errNoDemonstration // its title did not find it
	}
	for _, title := range d.wanted {
		if strings.Contains(shown, strings.ToLower(name(title))) {
			d.asked = title
			return Search(name(title)), nil
		}
	}
	if len(d.wanted) > 0 {
		return "", errNoDemonstration
	}
	for _, answer := range d.task.Answers {
		a := strings.ToLower(answer)
		if a == "yes" || a == "no" || strings.Contains(shown, a) {
			return Answer(answer), nil
		}
	}
	return "", errNoDemonstration
}

// Search implements search.Retriever.
func (d *reader) Search(ctx context.Context, queries []string, k int) ([][]forager.Passage, error) {
	lists, err := d.practice.Retriever.Search(ctx, queries, k)
	if err != nil {
		d.failed = err
		return nil, err
	}
	for _, list := range lists {
		for _, p := range list {
			d.wanted = slices.DeleteFunc(d.wanted, called(p.Title))
		}
	}
	return lists, nil
}

// name is a title without the remark in parentheses that tells namesakes apart.
func name(title string) string {
	before, _, _ := strings.Cut(title, " (")
	return before
}

// called tells the titles that are the same but for case.
func called(title string) func(string) bool {
	return func(t string) bool { return strings.EqualFold(t, title) }
}
