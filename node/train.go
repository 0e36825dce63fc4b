package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/eval"
	"github.com/forager-rl/forager/rundir"
)

// TrainOptions says how to train in one process.
type TrainOptions struct {
	// Resume is the run directory to continue; empty starts a new run.
	Resume string
	// ConfigYAML renders the resolved configuration for the run directory.
	ConfigYAML func(Config) ([]byte, error)
	Logger     *slog.Logger
	Observer
	// Stop asks the learner to finish its step and write a checkpoint;
	// cancelling the context ends everything at once.
	Stop <-chan struct{}
}

// TrainResult is what a training session leaves.
type TrainResult struct {
	Dir           string
	Finished      bool         // all steps, or the time limit
	Before, After *eval.Report // nil when skipped or not finished
	Report        string       // path of report.md
}

// Train runs every role in this process until the run is finished or told to
// stop, then evaluates and writes the report.
func Train(ctx context.Context, cfg Config, o TrainOptions) (TrainResult, error) {
	var result TrainResult
	if err := cfg.Validate(); err != nil {
		return result, err
	}
	if err := tryServers(ctx, &cfg, o.Logger); err != nil {
		return result, err
	}
	dir, err := trainDir(&cfg, o)
	if err != nil {
		return result, err
	}
	result.Dir = dir.Path()
	for _, role := range []string{"train", string(forager.RoleNATS), string(forager.RoleCluster), string(forager.RoleReplay), string(forager.RoleLearner)} {
		unlock, err := dir.Lock(role)
		if err != nil {
			return result, err
		}
		defer func() { _ = unlock() }()
	}
	p, err := newProcess(cfg, dir, o.Logger, o.Observer)
	if err != nil {
		return result, err
	}
	o.notice("run directory %s", dir.Path())
	result.Finished, err = p.trainAll(ctx, o.Stop)
	if err = errors.Join(err, p.close()); err != nil || ctx.Err() != nil {
		return result, err
	}
	if result.Finished && !cfg.Eval.Skip {
		if result.Before, result.After, err = p.compare(ctx, o.Stop); err != nil {
			return result, err
		}
	}
	result.Report, err = p.report(result)
	return result, err
}

// trainDir makes the run directory, or opens the one to resume.
func trainDir(cfg *Config, o TrainOptions) (*rundir.Dir, error) {
	if o.Resume != "" {
		return rundir.Open(o.Resume)
	}
	id := cfg.Run.ID
	if id == "" {
		id = rundir.NewID(time.Now(), rand.Uint64())
	}
	// What can be wrong with the data is found out before anything is written.
	if _, err := loadTasks(cfg); err != nil {
		return nil, err
	}
	dir, err := rundir.Create(cfg.Run.Root, id)
	if err != nil {
		return nil, err
	}
	if o.ConfigYAML == nil {
		return dir, nil
	}
	cfg.Run.ID = dir.ID()
	yaml, err := o.ConfigYAML(*cfg)
	if err != nil {
		return nil, err
	}
	return dir, dir.WriteConfig(yaml)
}

// tryServers finds out whether the inference servers, if there are any, can be
// trained with, before anything is written.
func tryServers(ctx context.Context, cfg *Config, logger *slog.Logger) error {
	if err := cfg.validateTraining(); err != nil || !cfg.Policy.isRemote() {
		return err
	}
	l, err := loadLanguage(cfg.Policy.Path, cfg.Policy.ChatTemplate)
	if err != nil {
		return err
	}
	s, err := openServers(ctx, cfg, "", true, l.tokenizer, logger)
	if err != nil {
		return err
	}
	s.close()
	return nil
}

// trainAll starts the roles and learns.
func (p *process) trainAll(ctx context.Context, stop <-chan struct{}) (finished bool, err error) {
	learning, cancel := stopContext(ctx, stop)
	defer cancel()

	if err := p.openBus(ctx, true); err != nil {
		return false, err
	}
	p.condition.expect(forager.Roles()...)
	p.condition.rise(forager.RoleNATS)
	if err := p.startAdmin(ctx); err != nil {
		return false, err
	}
	p.startRoster(ctx)
	for _, role := range []forager.Role{forager.RoleCluster, forager.RoleReplay, forager.RoleRewardServer, forager.RoleRetriever} {
		if err := p.startRole(ctx, role); err != nil {
			return false, err
		}
	}
	finished, err = p.learn(learning, func(context.Context) error { return p.startRole(ctx, forager.RoleActor) })
	if learning.Err() != nil && ctx.Err() == nil && errors.Is(err, context.Canceled) {
		err = nil // told to stop before the first step
	}
	return finished, err
}

// compare plays the held-out questions with the starting and the newest policy.
func (p *process) compare(ctx context.Context, stop <-chan struct{}) (before, after *eval.Report, err error) {
	ctx, cancel := stopContext(ctx, stop)
	defer cancel()
	latest, err := LatestPolicy(p.dir.Path())
	if err != nil {
		return nil, nil, err
	}
	tasks, err := p.heldOut()
	if err != nil {
		return nil, nil, err
	}
	if len(tasks) == 0 {
		p.observer.notice("no held-out questions in split %s: the report has no table", p.cfg.Eval.Split)
		return nil, nil, nil
	}
	evaluator, err := newEvaluator(ctx, &p.cfg, p.logger)
	if err != nil {
		return nil, nil, err
	}
	defer evaluator.close()
	var reports [2]eval.Report
	for i, policy := range []string{filepath.Join(p.dir.Path(), startingPolicy), latest} {
		name := []string{"evaluate the starting policy", "evaluate the trained policy"}[i]
		rollouts, err := evaluator.play(ctx, policy, tasks, func(done int) { p.observer.phase(name, done, len(tasks)) })
		if err != nil {
			return nil, nil, err
		}
		if reports[i], err = assess(tasks, rollouts, p.cfg.Run.Seed); err != nil {
			return nil, nil, err
		}
	}
	return &reports[0], &reports[1], nil
}

// heldOut is the questions of the report.
func (p *process) heldOut() ([]forager.Task, error) {
	tasks, err := p.dataset()
	if err != nil {
		return nil, err
	}
	return limited(tasks.split(forager.Split(p.cfg.Eval.Split)), p.cfg.Eval.Limit), nil
}

// limited takes n tasks spread evenly over a list; 0 takes all.
func limited(tasks []forager.Task, n int) []forager.Task {
	if n == 0 || n >= len(tasks) {
		return tasks
	}
	list := make([]forager.Task, n)
	for i := range list {
		list[i] = tasks[i*len(tasks)/n]
	}
	return list
}

// LatestPolicy is the folder of the newest complete checkpoint of a run, or of
// its starting policy when it has none.
func LatestPolicy(path string) (string, error) {
	dir, err := rundir.Open(path)
	if err != nil {
		return "", err
	}
	latest, err := dir.ReadCheckpoints().Latest()
	if errors.Is(err, forager.ErrNotFound) {
		return filepath.Join(dir.Path(), startingPolicy), nil
	}
	if err != nil {
		return "", fmt.Errorf("newest checkpoint of %s: %w", path, err)
	}
	return latest.Dir, nil
}
