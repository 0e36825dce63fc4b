package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/rewardsrv/rewardmodel"
)

const (
	rewardModelObject = bus.ObjectRewardModel // replaced by each newer one
	topicRewardModel  = bus.TopicRewardModel
)

// pollRewardModel is how often the object store is asked for a reward model, in
// case a notice was lost.
const pollRewardModel = 30 * time.Second

// rewardModels implements rewardsrv.Models.
type rewardModels struct{ bus *bus.Bus }

// Publish replaces the run's reward model.
func (m rewardModels) Publish(ctx context.Context, version uint64, kind string, data []byte) error {
	if err := m.bus.PutObject(ctx, rewardModelObject, data); err != nil {
		return fmt.Errorf("publish %s model v%d: %w", kind, version, err)
	}
	// It is published: who misses the notice will ask.
	_ = m.bus.Notify(ctx, topicRewardModel, nil)
	return nil
}

// Latest gives the run's reward model, or forager.ErrNotFound.
func (m rewardModels) Latest(ctx context.Context) ([]byte, error) {
	return m.bus.GetObject(ctx, rewardModelObject)
}

// modelWatcher keeps the run's newest reward model at hand.
type modelWatcher struct {
	kind    rewardmodel.Kind // that the recipe pays
	latest  func(context.Context) ([]byte, error)
	logger  *slog.Logger
	current atomic.Pointer[rewardmodel.Model]
}

// run follows the reward model until ctx is done.
func (w *modelWatcher) run(ctx context.Context, b *bus.Bus) error {
	return heed(ctx, b, topicRewardModel, pollRewardModel, func(ctx context.Context) {
		if err := w.refresh(ctx); err != nil && ctx.Err() == nil {
			w.logger.Warn("the reward model was not refreshed, the one before stays", "error", err)
		}
	})
}

// refresh takes the newest model. One that is damaged, or of another kind than
// the recipe pays, is refused.
func (w *modelWatcher) refresh(ctx context.Context) error {
	data, err := w.latest(ctx)
	if errors.Is(err, forager.ErrNotFound) {
		return nil // none has been trained yet
	}
	if err != nil {
		return err
	}
	m, err := rewardmodel.Decode(data)
	if err != nil {
		return err
	}
	if m.Kind() != w.kind {
		return forager.WithHint(fmt.Errorf("the reward server trains a %s model, the recipe pays %s: %w", m.Kind(), w.kind, forager.ErrSchema),
			"give learner and reward server the same reward and judge settings")
	}
	if old := w.current.Swap(m); old == nil {
		w.logger.Info("turns are scored by a reward model from now on", "kind", m.Kind(), "version", m.Version())
	}
	return nil
}

// heed acts at once, at every notice on a topic, and every so often in case a
// notice was lost, until ctx is done.
func heed(ctx context.Context, b *bus.Bus, topic string, every time.Duration, act func(context.Context)) error {
	notices := make(chan struct{}, 1)
	watching := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		watching <- b.Watch(ctx, topic, func([]byte) {
			select {
			case notices <- struct{}{}:
			default:
			}
		})
	}()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		act(ctx)
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
