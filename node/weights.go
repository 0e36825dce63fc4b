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

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/actor"
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
// fetched once, however many players there are. Who sends a notice does not
// matter: what is current is asked of the cluster, and neither epoch nor version
// ever go back.
type weightsWatcher struct {
	bus     *bus.Bus
	state   func(context.Context) (cluster.State, error) // of the cluster
	objects weightsSource
	target  weightsTarget
	played  *actor.PlayedVersion // learns what target plays
	epochs  *newestEpoch         // of this process
	logger  *slog.Logger

	taken uint64 // epoch of the newest manifest that was taken
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
	state, err := w.state(ctx)
	if err != nil {
		return err
	}
	w.epochs.see(state.Lease.Epoch)
	m := state.Manifest
	if m == nil || m.Epoch < w.taken || m.Version < w.target.Version() {
		return nil
	}
	if m.Version > w.target.Version() {
		object, err := w.objects.get(ctx, *m)
		if err != nil {
			return err
		}
		if err := w.target.take(ctx, m.Version, object); err != nil {
			return err
		}
	}
	w.played.Reach(w.target.Version())
	w.taken = m.Epoch
	return nil
}

// awaitWeights waits until the learner has published weights.
func (p *process) awaitWeights(ctx context.Context, objects weightsSource) (m forager.Manifest, object []byte, err error) {
	defer p.condition.wait(forager.RoleActor, waitWeights)()
	waiting, done := context.WithCancel(ctx)
	defer done()
	asked := 0
	err = heed(waiting, p.bus, topicWeights, pollWeights, func(ctx context.Context) {
		newest, err := p.cluster.Manifest(ctx)
		var data []byte
		if err == nil {
			data, err = objects.get(ctx, newest)
		}
		if err == nil {
			m, object = newest, data
			done()
			return
		}
		if asked++; asked%2 == 0 {
			p.logger.Info("waiting for the first weights of the learner", "error", err)
		}
	})
	if err == nil {
		err = ctx.Err()
	}
	return m, object, err
}

// weightsSource brings the object of a manifest, whole and with its digest
// checked.
type weightsSource interface {
	get(ctx context.Context, m forager.Manifest) ([]byte, error)
}

// weightsSource is the object store, or the folder that this host shares.
func (p *process) weightsSource() (weightsSource, error) {
	reads := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "forager_actor_weights_total", Help: "Policy versions fetched, from the object store or from the folder that the host shares.",
	}, []string{"source"})
	if err := p.registry.Register(reads); err != nil {
		return nil, err
	}
	store := &weightsStore{object: p.bus.GetObjectOf, fetched: reads.WithLabelValues("store")}
	if p.cfg.Actor.WeightsDir == "" {
		return store, nil
	}
	return newWeightsFolder(p.cfg.Actor.WeightsDir, p.run, store, p.cfg.Bus.Timeout, reads.WithLabelValues("folder"), p.logger)
}

// weightsStore is the object store of the bus.
type weightsStore struct {
	object  func(ctx context.Context, name string, bytes int64, digest string) ([]byte, error)
	fetched prometheus.Counter
}

func (s *weightsStore) get(ctx context.Context, m forager.Manifest) ([]byte, error) {
	data, err := s.object(ctx, m.Object, m.Bytes, m.Digest)
	if err != nil {
		return nil, fmt.Errorf("fetch weights v%d: %w", m.Version, err)
	}
	s.fetched.Inc()
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
