package lm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/forager-rl/forager"
)

// adapterDir is the folder in a checkpoint that keeps the adapter. It is apart
// from the merged model, to which PEFT would add it once more.
const adapterDir = "adapter"

// Save writes a checkpoint into an existing folder: the model as trained so
// far, for anybody to load; the optimiser's state; and the adapter, if there is
// one.
func (t *Trainer) Save(dir string) error {
	if err := errors.Join(t.Model().Save(dir), t.State().Save(dir)); err != nil {
		return err
	}
	if t.adapter == nil {
		return nil
	}
	path := filepath.Join(dir, adapterDir)
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("write adapter: %w", err)
	}
	return t.adapter.Save(path, "")
}

// ResumeTrainer continues from what Save wrote. base is the model that the
// adapter changes; a run without adapters does not use it. A checkpoint that
// does not fit cfg is refused with forager.ErrArchitecture.
func ResumeTrainer(dir string, base *Model, cfg TrainerConfig) (_ *Trainer, err error) {
	m := base
	if cfg.LoRA.Rank == 0 {
		if m, err = Load(dir); err != nil {
			return nil, err
		}
	}
	state, err := LoadOptimizer(dir)
	if err != nil {
		return nil, err
	}
	t, err := NewTrainer(m, cfg)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			t.Close()
		}
	}()
	if t.adapter != nil {
		saved, err := LoadAdapter(filepath.Join(dir, adapterDir), m.Arch)
		if err != nil {
			return nil, err
		}
		if err := t.adapt(saved); err != nil {
			return nil, err
		}
	}
	if err := t.Restore(state); err != nil {
		return nil, err
	}
	return t, nil
}

// adapt copies the weights of an adapter of the same shape.
func (t *Trainer) adapt(a *Adapter) error {
	if have, got := t.adapter.Config, a.Config; have.Rank != got.Rank || have.Alpha != got.Alpha || len(t.weights) != len(a.Weights) {
		return fmt.Errorf("adapter has rank %d, alpha %g and %d weights, the settings say rank %d, alpha %g and %d weights: %w",
			got.Rank, got.Alpha, len(a.Weights), have.Rank, have.Alpha, len(t.weights), forager.ErrArchitecture)
	}
	copy(t.weights, a.Weights)
	t.adapted, t.merged = true, nil
	return nil
}
