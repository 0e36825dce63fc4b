package node

import (
	"path/filepath"
	"testing"

	"github.com/forager-rl/forager/warmstart"
)

// A warm start trains as the learner does: with its bound of memory, and with
// adapters that start from the seed.
func TestImitate(t *testing.T) {
	cfg := quick(t)
	cfg.Learner.MicroBatchTokens = 512
	cfg.Trainer.LoRA.Rank = 2
	if got := cfg.trainer(7); got.MicroBatchTokens != 512 || got.LoRA.Seed != 7 || got.LoRA.Rank != 2 {
		t.Errorf("trainer of %+v", got)
	}
	recipe := warmstart.DefaultImitationConfig()
	recipe.Limit = 1 // leaves no order for the seed to choose
	var policies [3]string
	for i, seed := range []uint64{1, 1, 2} {
		options := ImitateOptions{Out: filepath.Join(t.TempDir(), "policy"), Seed: seed, Logger: testLogger(t)}
		if _, err := Imitate(t.Context(), cfg, recipe, options); err != nil {
			t.Fatal(err)
		}
		policies[i] = fingerprint(loaded(t, options.Out))
		if _, err := Imitate(t.Context(), cfg, recipe, options); err == nil {
			t.Error("a folder is overwritten")
		}
	}
	if policies[0] != policies[1] || policies[0] == policies[2] {
		t.Errorf("policies of seeds 1, 1 and 2: %v", policies)
	}
}
