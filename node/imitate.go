package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/actor"
	"github.com/forager-rl/forager/policy"
	"github.com/forager-rl/forager/policy/lm"
	"github.com/forager-rl/forager/search"
	"github.com/forager-rl/forager/warmstart"
)

// ImitateOptions says where the policy goes and who hears of the work.
type ImitateOptions struct {
	// Out is the folder that is written. It must not exist.
	Out string
	// Seed fixes the order of the demonstrations and the start of adapters.
	Seed     uint64
	Logger   *slog.Logger
	Phase    func(name string, done, total int) // may be nil
	Progress func(warmstart.Progress)           // may be nil
}

// Imitate trains the configured policy on demonstrations of the training
// questions, with the episodes, retriever and trainer of the configuration, and
// writes what comes out as a policy folder.
func Imitate(ctx context.Context, cfg Config, recipe warmstart.ImitationConfig, o ImitateOptions) (warmstart.Imitation, error) {
	var none warmstart.Imitation
	if err := cfg.Validate(); err != nil {
		return none, err
	}
	if _, err := os.Stat(o.Out); !errors.Is(err, os.ErrNotExist) {
		return none, forager.WithHint(errors.Join(fmt.Errorf("%s exists", o.Out), err), "name a new folder")
	}
	all, err := loadTasks(&cfg)
	if err != nil {
		return none, err
	}
	model, l, err := loadPolicy(cfg.Policy.Path, cfg.Policy.ChatTemplate)
	if err != nil {
		return none, err
	}
	observer := Observer{Phase: o.Phase}
	observer.phase("index", 0, 1)
	environment, err := newEvaluator(ctx, &cfg, o.Logger)
	if err != nil {
		return none, err
	}
	defer environment.close()
	observer.phase("index", 1, 1)
	trainer, err := lm.NewTrainer(model, cfg.trainer(o.Seed))
	if err != nil {
		return none, err
	}
	defer trainer.Close()
	done, err := warmstart.Imitate(ctx, recipe, o.Seed, trainer, warmstart.Practice{
		Tasks: all.split(forager.Train), Retriever: environment.retriever, Tokenizer: l.tokenizer,
		NewPlayer: func(g policy.Generator, r search.Retriever) (*actor.Player, error) {
			return actor.NewPlayer(cfg.Episode, actor.PlayerDeps{
				Run: "demonstrations", Actor: "script", Generator: g, Tokenizer: l.tokenizer, Prompter: l,
				StopTokens: l.tokenizer.StopTokens(), Retriever: r, Clock: time.Now,
			})
		},
	}, o.Progress)
	if err != nil {
		return done, err
	}
	return done, savePolicy(o.Out, trainer.Model(), l)
}
