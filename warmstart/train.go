package warmstart

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/forager-rl/forager/actor"
	"github.com/forager-rl/forager/policy/lm"
	"github.com/forager-rl/forager/policy/tokenizer"
	"github.com/forager-rl/forager/search/worldfacts"
)

// tags are the tokens of the protocol. The tokenizer never splits them.
var tags = []string{"<think>", "</think>", "<search>", "</search>", "<information>", "</information>", "<answer>", "</answer>"}

const endOfSequence = "<|endoftext|>"

// Stage is one part of the curriculum.
type Stage struct {
	// MaxHops is the most hops of a demonstration, 1 to 3; each number of hops
	// is as likely.
	MaxHops int `mapstructure:"max_hops"`
	// StopEarly is the chance, after each search but the last, that a
	// demonstration answers with what it has found so far.
	StopEarly float64 `mapstructure:"stop_early"`
	// Astray is the chance, before each search but the first, that a demonstration
	// asks for something else that it has just read of, or the same again: it does
	// not know what to ask. It goes on until it has found all or may search no more,
	// and answers with what it has found.
	Astray float64 `mapstructure:"astray"`
	// Tokens ends the stage once so many tokens were trained on.
	Tokens int `mapstructure:"tokens"`
}

// Config is the recipe of a warm start.
type Config struct {
	// VocabSize is the size of the vocabulary, tags included.
	VocabSize int `mapstructure:"vocab_size"`
	// TokenizerWorlds is the number of invented worlds whose text the tokenizer
	// is trained on.
	TokenizerWorlds int `mapstructure:"tokenizer_worlds"`
	// BatchTokens is the size of an update.
	BatchTokens int `mapstructure:"batch_tokens"`
	// LearningRate is the peak; it rises over the first WarmupSteps updates and
	// falls by half a cosine to a tenth at the end.
	LearningRate float64 `mapstructure:"learning_rate"`
	WarmupSteps  int     `mapstructure:"warmup_steps"`
	// ContextWeight is the weight of the loss on tokens that the policy does not
	// act with (questions and passages, where names recur) against 1 for its own.
	// Predicting them teaches a small model to copy; they are not trained on in
	// reinforcement learning.
	ContextWeight float64 `mapstructure:"context_weight"`
	// Seed fixes everything.
	Seed uint64 `mapstructure:"seed"`
	// Stages is the curriculum.
	Stages []Stage `mapstructure:"stages"`
	// Episode is the rules of the demonstrations; training must use the same
	// template and observation style.
	Episode actor.EpisodeConfig `mapstructure:"episode"`
	// Trainer is the optimiser.
	Trainer lm.TrainerConfig `mapstructure:"trainer"`
	// Imitation is used instead of all this when a policy exists already.
	Imitation ImitationConfig `mapstructure:"imitation"`
}

// DefaultConfig is the recipe of the embedded policy.
func DefaultConfig() Config {
	return Config{
		VocabSize: 1024, TokenizerWorlds: 400, BatchTokens: 4096, LearningRate: 4e-3, WarmupSteps: 50, ContextWeight: 0.2, Seed: 1,
		Stages: []Stage{
			{MaxHops: 1, Tokens: 2_600_000},                // read one passage and copy from it
			{MaxHops: 3, Tokens: 5_400_000},                // follow a chain of them
			{MaxHops: 3, StopEarly: 0.65, Tokens: 900_000}, // and the bad habit that is to be unlearned
		},
		Episode: actor.DefaultEpisodeConfig(), Trainer: lm.DefaultTrainerConfig(), Imitation: DefaultImitationConfig(),
	}
}

// Validate reports the first setting out of range.
func (c Config) Validate() error {
	switch {
	case c.VocabSize < 300:
		return fmt.Errorf("vocab_size is %d, want at least 300", c.VocabSize)
	case c.TokenizerWorlds < 1:
		return fmt.Errorf("tokenizer_worlds is %d, want at least 1", c.TokenizerWorlds)
	case c.BatchTokens < 1:
		return fmt.Errorf("batch_tokens is %d, want at least 1", c.BatchTokens)
	case c.LearningRate <= 0:
		return fmt.Errorf("learning_rate is %g, want more than 0", c.LearningRate)
	case len(c.Stages) == 0:
		return fmt.Errorf("stages: want at least one")
	}
	for i, s := range c.Stages {
		if s.MaxHops < 1 || s.MaxHops > 3 || s.StopEarly < 0 || s.StopEarly > 1 || s.Astray < 0 || s.Astray > 1 || s.Tokens < 1 {
			return fmt.Errorf("stage %d: want max_hops 1 to 3, stop_early and astray 0 to 1 and tokens of at least 1", i)
		}
	}
	if err := c.Episode.Validate(); err != nil {
		return err
	}
	if err := c.Imitation.Validate(); err != nil {
		return fmt.Errorf("imitation: %w", err)
	}
	return c.Trainer.Validate()
}

// Result is a finished warm start.
type Result struct {
	Model     *lm.Model
	Tokenizer *tokenizer.Tokenizer
}

// Run makes a tokenizer and trains a model. The same Config gives the same
// weights on one kind of processor, with any number of threads. report, which
// may be nil, hears about every update.
func Run(ctx context.Context, cfg Config, report func(Progress)) (Result, error) {
	if err := cfg.Validate(); err != nil {
		return Result{}, fmt.Errorf("warm start: %w", err)
	}
	real, err := worldfacts.Real()
	if err != nil {
		return Result{}, err
	}
	names := worldfacts.NewNames(real)
	tok, err := tokenizer.Train(texts(cfg, names), tokenizer.TrainOptions{VocabSize: cfg.VocabSize, Added: tags, EOS: endOfSequence})
	if err != nil {
		return Result{}, err
	}
	model, err := lm.New(lm.Tiny(tok.VocabSize()), rand.New(rand.NewPCG(cfg.Seed, 0)))
	if err != nil {
		return Result{}, err
	}
	trainer, err := lm.NewTrainer(model, cfg.Trainer)
	if err != nil {
		return Result{}, err
	}
	defer trainer.Close()
	total := 0
	for _, s := range cfg.Stages {
		total += s.Tokens
	}
	course := &curriculum{cfg: cfg, tokenizer: tok, names: newNamer(names, tok), fit: &fit{
		trainer: trainer, learningRate: cfg.LearningRate, warmupSteps: cfg.WarmupSteps, contextWeight: cfg.ContextWeight,
		total: total, report: report, start: time.Now(),
	}}
	for i := range cfg.Stages {
		if err := course.stage(ctx, i); err != nil {
			return Result{}, fmt.Errorf("warm start: %w", err)
		}
	}
	return Result{Model: model, Tokenizer: tok}, nil
}

// texts is what the tokenizer is trained on: passages and questions of invented
// worlds.
func texts(cfg Config, names *worldfacts.Names) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range cfg.TokenizerWorlds {
			random := rand.New(rand.NewPCG(cfg.Seed, 1<<32+uint64(i)))
			w := worldfacts.Invent(random, 8, names.Using(random))
			for _, p := range w.Corpus() {
				if !yield(p.Title + ": " + p.Text) {
					return
				}
			}
			for j, t := range w.Questions(worldfacts.Options{Seed: uint64(i)}) {
				if j%4 == 0 && !yield("Question: "+t.Question+"\n") {
					return
				}
			}
		}
	}
}

// curriculum is a warm start under way.
type curriculum struct {
	cfg       Config
	tokenizer *tokenizer.Tokenizer
	names     *namer
	fit       *fit
	played    uint64 // demonstrations played, the stream of random seeds
}

// stage trains on demonstrations of one kind.
func (s *curriculum) stage(ctx context.Context, index int) error {
	stage := s.cfg.Stages[index]
	for end := s.fit.tokens + stage.Tokens; s.fit.tokens < end; {
		batch, err := s.batch(ctx, stage)
		if err != nil {
			return err
		}
		if err := s.fit.update(index, batch); err != nil {
			return err
		}
	}
	return nil
}

// batch plays demonstrations of a stage side by side until they fill an update. What is
// played depends on the seed and the demonstration's number alone.
func (s *curriculum) batch(ctx context.Context, stage Stage) ([]lm.Sequence, error) {
	const players = 4
	var batch []lm.Sequence
	for tokens := 0; tokens < s.cfg.BatchTokens; {
		var wait sync.WaitGroup
		played := make([][]lm.Sequence, players)
		errs := make([]error, players)
		const each = 4
		for i := range players {
			first := s.played + uint64(i*each)
			wait.Go(func() {
				d, err := newDemonstrator(s.cfg.Episode, s.tokenizer, s.names)
				for j := uint64(0); j < each && err == nil; j++ {
					var seq lm.Sequence
					seq, err = d.play(ctx, rand.New(rand.NewPCG(s.cfg.Seed, 1<<40+first+j)), stage)
					played[i] = append(played[i], seq)
				}
				errs[i] = err
			})
		}
		wait.Wait()
		s.played += players * each
		for i := range played {
			if errs[i] != nil {
				return nil, errs[i]
			}
			for _, seq := range played[i] {
				tokens += len(seq.Tokens)
				batch = append(batch, seq)
			}
		}
	}
	return batch, nil
}
