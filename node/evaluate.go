package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/actor"
	"github.com/forager-rl/forager/eval"
	"github.com/forager-rl/forager/search"
	"github.com/forager-rl/forager/security"
)

// EvaluateOptions says what to evaluate.
type EvaluateOptions struct {
	// Policy is a policy folder to play in this process; empty means what
	// Config.Policy names: inference servers, a folder, or the built-in.
	Policy string
	// Tasks are the questions; nil takes the held-out split of the configuration.
	Tasks   []forager.Task
	Logger  *slog.Logger
	Phase   func(name string, done, total int)  // may be nil
	Rollout func(forager.Task, forager.Rollout) // may be nil; sees every episode, in the order of the tasks
}

// Evaluate plays questions with one policy and scores the answers.
func Evaluate(ctx context.Context, cfg Config, o EvaluateOptions) (eval.Report, error) {
	if err := cfg.Validate(); err != nil {
		return eval.Report{}, err
	}
	tasks := o.Tasks
	if tasks == nil {
		all, err := loadTasks(&cfg)
		if err != nil {
			return eval.Report{}, err
		}
		tasks = all.split(forager.Split(cfg.Eval.Split))
	}
	tasks = limited(tasks, cfg.Eval.Limit)
	if len(tasks) == 0 {
		return eval.Report{}, forager.WithHint(fmt.Errorf("no questions in split %s", cfg.Eval.Split), "choose another with --split")
	}
	observer := Observer{Phase: o.Phase}
	observer.phase("index", 0, 1)
	evaluator, err := newEvaluator(ctx, &cfg, o.Logger)
	if err != nil {
		return eval.Report{}, err
	}
	defer evaluator.close()
	observer.phase("index", 1, 1)
	rollouts, err := evaluator.play(ctx, o.Policy, tasks, func(done int) { observer.phase("evaluate", done, len(tasks)) })
	if err != nil {
		return eval.Report{}, err
	}
	if o.Rollout != nil {
		for i, r := range rollouts {
			o.Rollout(tasks[i], r)
		}
	}
	return assess(tasks, rollouts, cfg.Run.Seed)
}

func assess(tasks []forager.Task, rollouts []forager.Rollout, seed uint64) (eval.Report, error) {
	return eval.Evaluate(tasks, rollouts, eval.DefaultConfig(), rand.New(rand.NewPCG(seed, 0)))
}

// evaluator plays questions with one policy after another: it keeps the index
// and makes engines for each policy in turn.
type evaluator struct {
	cfg       *Config
	retriever search.Retriever
	shut      func() error
	logger    *slog.Logger
}

func newEvaluator(ctx context.Context, cfg *Config, logger *slog.Logger) (*evaluator, error) {
	a := &evaluator{cfg: cfg, logger: logger, shut: func() error { return nil }}
	if cfg.Search.Client.URL != "" {
		credentials, err := loadCredentials(cfg.Security, logger, security.Roles()...)
		if err != nil {
			return nil, err
		}
		client, err := search.NewHTTPRetriever(retrieverClient(cfg.Search.Client, credentials))
		if err != nil {
			return nil, err
		}
		a.retriever, a.shut = client, client.Close
		return a, nil
	}
	index, _, shut, err := openIndex(ctx, cfg)
	if err != nil {
		return nil, err
	}
	a.retriever, a.shut = search.Cached(index, cfg.Search.Cache), shut
	return a, nil
}

func (a *evaluator) close() {
	if err := a.shut(); err != nil {
		a.logger.Warn("the index was not closed", "error", err)
	}
}

// ensemble makes what plays a policy folder, for n players; the empty path is
// what the inference servers of the configuration serve, or the configured
// policy.
func (a *evaluator) ensemble(ctx context.Context, path string) (e ensemble, n int, l language, err error) {
	template := a.cfg.Policy.ChatTemplate
	if path == "" && a.cfg.Policy.isRemote() {
		if l, err = loadLanguage(a.cfg.Policy.Path, template); err != nil {
			return nil, 0, l, err
		}
		s, err := openServers(ctx, a.cfg, "", false, l.tokenizer, a.logger)
		return s, 1, l, err
	}
	if path == "" {
		path = a.cfg.Policy.Path
	}
	model, l, err := loadPolicy(path, template)
	if err != nil {
		return nil, 0, l, err
	}
	n = engineCount(a.cfg.Policy.Engine)
	s, err := newEngines(n, model, 0, l.tokenizer, a.cfg.Policy.Engine)
	return s, n, l, err
}

// play plays every task once, at the evaluation temperature. progress hears how
// many are done.
func (a *evaluator) play(ctx context.Context, path string, tasks []forager.Task, progress func(done int)) ([]forager.Rollout, error) {
	ensemble, n, l, err := a.ensemble(ctx, path)
	if err != nil {
		return nil, err
	}
	defer ensemble.close()
	ctx, cancel := context.WithCancel(ctx)
	engines := newGroup(a.logger, a.cfg.Admin.StopTimeout)
	defer engines.stop()
	defer cancel()
	ensemble.start(ctx, engines)
	var players []*actor.Player
	for i := range n {
		player, err := actor.NewPlayer(a.cfg.Episode, actor.PlayerDeps{
			Run: "evaluation", Actor: fmt.Sprint(i), Generator: ensemble.generator(i),
			Tokenizer: l.tokenizer, Prompter: l, StopTokens: l.tokenizer.StopTokens(), Retriever: a.retriever, Clock: time.Now,
		})
		if err != nil {
			return nil, err
		}
		players = append(players, player)
	}
	rollouts := make([]forager.Rollout, len(tasks))
	var mu sync.Mutex
	var wait sync.WaitGroup
	var failed error
	next, done := 0, 0
	for i := range min(len(tasks), len(players)*ensemble.parallel()) {
		player := players[i%len(players)]
		wait.Go(func() {
			for {
				mu.Lock()
				n := next
				next++
				stop := n >= len(tasks) || failed != nil
				mu.Unlock()
				if stop {
					return
				}
				r, _, err := player.Play(ctx, tasks[n], actor.SampleSeed(a.cfg.Run.Seed, n), a.cfg.Eval.Temperature)
				r.ID = forager.RolloutID(r.Run, uint64(n), 0)
				r.Group = uint64(n)
				mu.Lock()
				rollouts[n] = r
				failed = errors.Join(failed, err)
				done++
				progress(done)
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return rollouts, failed
}
