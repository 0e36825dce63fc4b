package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/cluster"
	"github.com/forager-rl/forager/learner"
	"github.com/forager-rl/forager/policy/lm"
	"github.com/forager-rl/forager/rundir"
)

// initialPolicy reads the starting policy and keeps a copy in the run directory,
// so that the run does not change when the original does.
func (p *process) initialPolicy() (*lm.Model, language, error) {
	kept := filepath.Join(p.dir.Path(), startingPolicy)
	if _, err := os.Stat(kept); err == nil {
		return loadPolicy(kept, TemplateAuto)
	}
	model, l, err := loadPolicy(p.cfg.Policy.Path, p.cfg.Policy.ChatTemplate)
	if err != nil {
		return nil, l, err
	}
	return model, l, savePolicy(kept, model, l)
}

// checkpointer implements learner.Checkpointer.
type checkpointer struct {
	checkpoints *rundir.Checkpoints
	cluster     *cluster.Client
	epoch       uint64
	trainer     *lm.Trainer
	language    language
	saved       cluster.Checkpoint // last
}

const stateFile = "state.json"

// Save writes the checkpoint.
func (c *checkpointer) Save(state learner.State, held func() error) error {
	saved, err := c.checkpoints.Save(state.Step, func(dir string) error {
		return errors.Join(
			c.trainer.Save(dir),
			c.language.save(dir),
			writeJSON(filepath.Join(dir, stateFile), state),
		)
	}, held)
	if err == nil {
		c.saved = cluster.Checkpoint{Step: saved.Step, Version: state.Version, Path: filepath.Base(saved.Dir), Digest: saved.Digest}
	}
	return err
}

// Record puts the checkpoint on record with the cluster.
func (c *checkpointer) Record(ctx context.Context) error {
	return c.cluster.AddCheckpoint(ctx, c.epoch, c.saved)
}

func writeJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(path), err)
	}
	return os.WriteFile(path, data, 0o644)
}

// restore reads a checkpoint into a trainer and gives the learner's state.
func restore(dir string, base *lm.Model, cfg lm.TrainerConfig) (*lm.Trainer, *learner.State, error) {
	data, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return nil, nil, fmt.Errorf("load checkpoint: %w", err)
	}
	var state learner.State
	if err := json.Unmarshal(data, &state); err != nil {
		return nil, nil, fmt.Errorf("load checkpoint: %s: %w: %w", stateFile, forager.ErrCorrupt, err)
	}
	trainer, err := lm.ResumeTrainer(dir, base, cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("load checkpoint: %w", err)
	}
	return trainer, &state, nil
}

// recorded are the names of the checkpoints that are on record with the cluster,
// oldest first.
func (p *process) recorded(ctx context.Context) ([]string, error) {
	var names []string
	err := retryUntil(ctx, "ask the cluster for checkpoints", p.cfg.Admin.StartTimeout, func(ctx context.Context) error {
		state, err := p.cluster.State(ctx)
		names = nil
		for _, c := range state.Checkpoints {
			names = append(names, c.Path)
		}
		return err
	})
	return names, err
}

// resume restores the newest complete checkpoint, or starts with the initial
// policy when there is none.
func (p *process) resume(ctx context.Context, checkpoints *rundir.Checkpoints, initial *lm.Model) (*lm.Trainer, *learner.State, error) {
	recorded, err := p.recorded(ctx)
	if err != nil {
		return nil, nil, err
	}
	latest, err := checkpoints.Latest(recorded...)
	if errors.Is(err, forager.ErrNotFound) {
		if p.cfg.Trainer.LoRA.Rank == 0 {
			initial = initial.Clone() // which training overwrites
		}
		trainer, err := lm.NewTrainer(initial, p.cfg.Trainer)
		return trainer, nil, err
	}
	if err != nil {
		return nil, nil, err
	}
	for _, skipped := range latest.Skipped {
		p.logger.Warn("a damaged checkpoint was passed over", "error", skipped)
		p.observer.notice("a damaged checkpoint was passed over: %v", skipped)
	}
	trainer, state, err := restore(latest.Dir, initial, p.cfg.Trainer)
	if err != nil {
		return nil, nil, err
	}
	if trainer.Model().Arch.String() != initial.Arch.String() {
		trainer.Close()
		return nil, nil, forager.WithHint(
			fmt.Errorf("checkpoint %s holds %s, the run trains %s: %w", latest.Dir, trainer.Model().Arch, initial.Arch, forager.ErrArchitecture),
			"start a new run for another architecture")
	}
	p.observer.notice("resuming at step %d from %s", state.Step, latest.Dir)
	return trainer, state, nil
}
