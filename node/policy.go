package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/cluster"
	"github.com/forager-rl/forager/learner"
	"github.com/forager-rl/forager/policy/builtin"
	"github.com/forager-rl/forager/policy/lm"
	"github.com/forager-rl/forager/policy/tokenizer"
	"github.com/forager-rl/forager/rundir"
)

const tokenizerFile = "tokenizer.json"

// loadPolicy reads a model and its tokenizer from a folder; the empty path is
// the built-in warm start.
func loadPolicy(dir string) (*lm.Model, *tokenizer.Tokenizer, error) {
	if dir == "" {
		return builtin.Load()
	}
	model, err := lm.Load(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("load policy: %w", err)
	}
	tok, err := tokenizer.Load(filepath.Join(dir, tokenizerFile))
	if err != nil {
		return nil, nil, fmt.Errorf("load policy: %w", err)
	}
	if tok.VocabSize() > model.Arch.VocabSize {
		return nil, nil, fmt.Errorf("load policy %s: the tokenizer has %d tokens, the model %d: %w", dir, tok.VocabSize(), model.Arch.VocabSize, forager.ErrArchitecture)
	}
	return model, tok, nil
}

// trainable implements learner.Model with the native engine's trainer.
type trainable struct{ trainer *lm.Trainer }

func native(seqs []learner.Sequence) []lm.Sequence {
	list := make([]lm.Sequence, len(seqs))
	for i, s := range seqs {
		list[i] = lm.Sequence{Tokens: s.Tokens, Mask: s.Mask}
	}
	return list
}

// Logprobs implements learner.Scorer. Only masked positions are filled.
func (t trainable) Logprobs(seqs []learner.Sequence) ([][]float32, error) {
	return t.trainer.Logprobs(native(seqs))
}

// Accumulate implements learner.Model.
func (t trainable) Accumulate(seqs []learner.Sequence, loss func(i int, logp, grad []float32)) error {
	return t.trainer.Accumulate(native(seqs), loss)
}

// Update implements learner.Model.
func (t trainable) Update(learningRate float32) (float64, bool) {
	return t.trainer.Update(learningRate)
}

// publisher implements learner.Publisher: weights to the object store, then the
// manifest through Raft under the learner's epoch, then a notice.
type publisher struct {
	bus     *bus.Bus
	cluster *cluster.Client
	trainer *lm.Trainer
	run     string
	epoch   uint64
	clock   func() time.Time
	logger  *slog.Logger
}

// Published implements learner.Publisher.
func (p *publisher) Published(ctx context.Context) (forager.Version, bool, error) {
	m, err := p.cluster.Manifest(ctx)
	if errors.Is(err, forager.ErrNotFound) {
		return 0, false, nil
	}
	return m.Version, err == nil, err
}

// objectName holds the epoch, so that a learner that lost its lease cannot
// overwrite the weights of its successor.
func objectName(epoch uint64, v forager.Version) string {
	return fmt.Sprintf("weights-e%06d-v%08d", epoch, v)
}

// Publish implements learner.Publisher.
func (p *publisher) Publish(ctx context.Context, version forager.Version, step uint64) error {
	data, err := p.trainer.Model().Encode()
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	m := forager.Manifest{
		Run: p.run, Version: version, Epoch: p.epoch, Step: step, Object: objectName(p.epoch, version),
		Digest: "sha256:" + hex.EncodeToString(sum[:]), Bytes: int64(len(data)),
		Shape: p.trainer.Model().Arch.String(), Time: p.clock().UTC(),
	}
	previous, err := p.cluster.Manifest(ctx)
	if err != nil && !errors.Is(err, forager.ErrNotFound) {
		return err
	}
	if err := p.bus.PutObject(ctx, m.Object, data); err != nil {
		return err
	}
	if err := p.cluster.PublishManifest(ctx, m); err != nil {
		return err
	}
	notice, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	// From here on the version is published: what fails costs actors a moment.
	if err := p.bus.Notify(ctx, topicWeights, notice); err != nil {
		p.logger.Warn("actors were not told about new weights and will ask", "version", version, "error", err)
	}
	if err := p.bus.KeepObjects(ctx, []string{m.Object, previous.Object}); err != nil {
		p.logger.Warn("old weights stay in the object store", "error", err)
	}
	return nil
}

// checkpointer implements learner.Checkpointer.
type checkpointer struct {
	checkpoints *rundir.Checkpoints
	cluster     *cluster.Client
	epoch       uint64
	trainer     *lm.Trainer
	tokenizer   *tokenizer.Tokenizer
	logger      *slog.Logger
}

const stateFile = "state.json"

// Save writes the checkpoint and records it with the cluster.
func (c *checkpointer) Save(ctx context.Context, state learner.State) error {
	saved, err := c.checkpoints.Save(state.Step, func(dir string) error {
		return errors.Join(
			c.trainer.Model().Save(dir),
			c.trainer.State().Save(dir),
			c.tokenizer.Save(filepath.Join(dir, tokenizerFile)),
			writeJSON(filepath.Join(dir, stateFile), state),
		)
	})
	if err != nil {
		return err
	}
	err = c.cluster.AddCheckpoint(ctx, c.epoch, cluster.Checkpoint{
		Step: saved.Step, Version: state.Version, Path: filepath.Base(saved.Dir), Digest: saved.Digest,
	})
	if errors.Is(err, forager.ErrFenced) {
		return err
	}
	if err != nil {
		c.logger.Warn("the cluster does not know the newest checkpoint", "step", state.Step, "error", err)
	}
	return nil
}

func writeJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(path), err)
	}
	return os.WriteFile(path, data, 0o644)
}

// restore reads a checkpoint into a trainer and gives the learner's state.
func restore(dir string, cfg lm.TrainerConfig) (*lm.Trainer, *learner.State, error) {
	model, err := lm.Load(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("load checkpoint: %w", err)
	}
	moments, err := lm.LoadOptimizer(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("load checkpoint: %w", err)
	}
	data, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return nil, nil, fmt.Errorf("load checkpoint: %w", err)
	}
	var state learner.State
	if err := json.Unmarshal(data, &state); err != nil {
		return nil, nil, fmt.Errorf("load checkpoint: %s: %w: %w", stateFile, forager.ErrCorrupt, err)
	}
	trainer, err := lm.NewTrainer(model, cfg)
	if err != nil {
		return nil, nil, err
	}
	if err := trainer.Restore(moments); err != nil {
		trainer.Close()
		return nil, nil, fmt.Errorf("load checkpoint: %w", err)
	}
	return trainer, &state, nil
}

// weightsWatcher brings published weights to the engines of this process: each
// version is fetched once, however many engines there are.
type weightsWatcher struct {
	bus     *bus.Bus
	cluster *cluster.Client
	engines []*lm.Engine
	logger  *slog.Logger
}

// pollWeights is how often the cluster is asked for the manifest, in case a
// notice was lost.
const pollWeights = 5 * time.Second

// Run follows manifests until ctx is done.
func (w *weightsWatcher) Run(ctx context.Context) error {
	notices := make(chan struct{}, 1)
	watching := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		watching <- w.bus.Watch(ctx, topicWeights, func([]byte) {
			select {
			case notices <- struct{}{}:
			default:
			}
		})
	}()
	tick := time.NewTicker(pollWeights)
	defer tick.Stop()
	for {
		if _, err := w.refresh(ctx); err != nil && ctx.Err() == nil {
			w.logger.Warn("weights were not refreshed", "error", err)
		}
		select {
		case <-notices:
		case <-tick.C:
		case err := <-watching:
			return err
		case <-ctx.Done():
			<-watching
			return nil
		}
	}
}

// refresh swaps in the newest published weights, if they are new.
func (w *weightsWatcher) refresh(ctx context.Context) (*forager.Manifest, error) {
	m, err := w.cluster.Manifest(ctx)
	if err != nil {
		return nil, err
	}
	if len(w.engines) > 0 && m.Version <= w.engines[0].Version() {
		return &m, nil
	}
	model, err := fetchWeights(ctx, w.bus, m)
	if err != nil {
		return nil, err
	}
	for _, e := range w.engines {
		if err := e.SetWeights(model, m.Version); err != nil && !errors.Is(err, forager.ErrStale) {
			return nil, err
		}
	}
	return &m, nil
}

// fetchWeights reads and checks the weights of a manifest.
func fetchWeights(ctx context.Context, b *bus.Bus, m forager.Manifest) (*lm.Model, error) {
	data, err := b.GetObject(ctx, m.Object)
	if err != nil {
		return nil, fmt.Errorf("fetch weights v%d: %w", m.Version, err)
	}
	sum := sha256.Sum256(data)
	if got := "sha256:" + hex.EncodeToString(sum[:]); got != m.Digest {
		return nil, fmt.Errorf("fetch weights v%d: digest is %s, manifest says %s: %w", m.Version, got, m.Digest, forager.ErrCorrupt)
	}
	return lm.Decode(data)
}
