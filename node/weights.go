package node

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/cluster"
	"github.com/forager-rl/forager/policy/lm"
)

// weightsTarget is what plays with published weights.
type weightsTarget interface {
	Version() forager.Version
	// take swaps in the weights that an object holds. A version that is not
	// newer is no error.
	take(ctx context.Context, version forager.Version, object []byte) error
}

// weightsWatcher brings published weights to this process: each version is
// fetched once, however many players there are.
type weightsWatcher struct {
	bus     *bus.Bus
	cluster *cluster.Client
	target  weightsTarget
	logger  *slog.Logger
}

// pollWeights is how often the cluster is asked for the manifest, in case a
// notice was lost.
const pollWeights = 5 * time.Second

// Run follows manifests until ctx is done.
func (w *weightsWatcher) Run(ctx context.Context) error {
	return heed(ctx, w.bus, topicWeights, pollWeights, func(ctx context.Context) {
		if err := w.refresh(ctx); err != nil && ctx.Err() == nil {
			w.logger.Warn("weights were not refreshed", "error", err)
		}
	})
}

// refresh swaps in the newest published weights, if they are new.
func (w *weightsWatcher) refresh(ctx context.Context) error {
	m, err := w.cluster.Manifest(ctx)
	if err != nil || m.Version <= w.target.Version() {
		return err
	}
	object, err := fetchWeights(ctx, w.bus, m)
	if err != nil {
		return err
	}
	return w.target.take(ctx, m.Version, object)
}

// awaitWeights waits until the learner has published weights.
func (p *process) awaitWeights(ctx context.Context) (forager.Manifest, []byte, error) {
	defer p.condition.wait(forager.RoleActor, waitWeights)()
	for waited := 0; ; waited++ {
		m, err := p.cluster.Manifest(ctx)
		if err == nil {
			var object []byte
			if object, err = fetchWeights(ctx, p.bus, m); err == nil {
				return m, object, nil
			}
		}
		if waited%20 == 19 {
			p.logger.Info("waiting for the first weights of the learner", "error", err)
		}
		if !sleep(ctx, pollWeights/10) {
			return forager.Manifest{}, nil, ctx.Err()
		}
	}
}

// fetchWeights reads and checks the object of a manifest.
func fetchWeights(ctx context.Context, b *bus.Bus, m forager.Manifest) ([]byte, error) {
	data, err := b.GetObjectOf(ctx, m.Object, m.Bytes)
	if err != nil {
		return nil, fmt.Errorf("fetch weights v%d: %w", m.Version, err)
	}
	sum := sha256.Sum256(data)
	if got := "sha256:" + hex.EncodeToString(sum[:]); got != m.Digest {
		return nil, fmt.Errorf("fetch weights v%d: digest is %s, manifest says %s: %w", m.Version, got, m.Digest, forager.ErrCorrupt)
	}
	return data, nil
}

// parseShared reads the object of weights that lie in a shared folder.
func parseShared(object []byte) (sharedWeights, error) {
	var s sharedWeights
	if err := json.Unmarshal(object, &s); err != nil || s.Folder == "" {
		return s, forager.WithHint(fmt.Errorf("the learner publishes weights for engines, not in a shared folder: %w", forager.ErrSchema),
			"give the learner the same policy.remote settings as the actors")
	}
	return s, nil
}

// weightsDecoder reads the objects of weights for engines. A run publishes whole
// models or adapters to its starting policy: its first object tells which. The
// zero value reads whole models.
type weightsDecoder struct {
	base *lm.Model // what adapters change; nil once the run has published a whole model
	mark string    // fingerprint of base, when an adapter has asked for it
}

func (d *weightsDecoder) decode(object []byte) (*lm.Model, error) {
	if d.base == nil {
		return lm.Decode(object)
	}
	adapter, of, err := lm.DecodeAdapter(object, d.base.Arch)
	if errors.Is(err, forager.ErrSchema) {
		d.base = nil
		return lm.Decode(object)
	}
	if err != nil {
		return nil, err
	}
	if d.mark == "" {
		d.mark = fingerprint(d.base)
	}
	if of != d.mark {
		return nil, forager.WithHint(fmt.Errorf("the learner's adapter changes the model %s, policy.path holds %s: %w", of, d.mark, forager.ErrArchitecture),
			"give actors and learner the same policy.path")
	}
	return adapter.Merge(d.base)
}

// fingerprint tells models apart by all their weights.
func fingerprint(m *lm.Model) string {
	sum := sha256.New()
	block := make([]byte, 0, 1<<16)
	for part := range slices.Chunk(m.Weights, cap(block)/4) {
		block = block[:0]
		for _, w := range part {
			block = binary.LittleEndian.AppendUint32(block, math.Float32bits(w))
		}
		sum.Write(block)
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}
