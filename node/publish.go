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
	"github.com/forager-rl/forager/policy/lm"
)

// publisher implements learner.Publisher: weights to the object store, then the
// manifest through Raft under the learner's epoch, then a notice.
type publisher struct {
	bus     *bus.Bus
	cluster *cluster.Client
	trainer *lm.Trainer
	shared  *sharedFolder // nil when actors play on engines of their own
	shape   string        // of the model
	base    string        // fingerprint of the model that an adapter changes
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

// older reports whether a name is that of weights from before a version. What a
// learner removes is older than what it knows of, never its successor's.
func older(name string, than forager.Manifest) bool {
	var epoch uint64
	var version forager.Version
	if n, err := fmt.Sscanf(name, "weights-e%d-v%d", &epoch, &version); n != 2 || err != nil || name != objectName(epoch, version) {
		return false
	}
	return epoch < than.Epoch || epoch == than.Epoch && version < than.Version
}

// Publish implements learner.Publisher.
func (p *publisher) Publish(ctx context.Context, version forager.Version, step uint64) error {
	name := objectName(p.epoch, version)
	data, err := p.encode(name)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	m := forager.Manifest{
		Run: p.run, Version: version, Epoch: p.epoch, Step: step, Object: name,
		Digest: "sha256:" + hex.EncodeToString(sum[:]), Bytes: int64(len(data)),
		Shape: p.shape, Time: p.clock().UTC(),
	}
	current, err := p.cluster.Manifest(ctx)
	if err != nil && !errors.Is(err, forager.ErrNotFound) {
		return err
	}
	p.makeRoom(ctx, m, current)
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
	return nil
}

// makeRoom removes weights from before a version, but for those that are current:
// of former learners also what they never published.
func (p *publisher) makeRoom(ctx context.Context, m, current forager.Manifest) {
	old := func(name string) bool { return older(name, m) && name != current.Object }
	if err := p.bus.DropObjects(ctx, old); err != nil {
		p.logger.Warn("old weights stay in the object store", "error", err)
	}
	if p.shared != nil {
		if err := p.shared.drop(old); err != nil {
			p.logger.Warn("old weights stay in the shared folder", "error", err)
		}
	}
}

// encode gives the object of a version: the weights or the adapter, or where
// they lie.
func (p *publisher) encode(name string) ([]byte, error) {
	if p.shared != nil {
		return p.shared.put(name, p.trainer)
	}
	if a := p.trainer.Adapter(); a != nil {
		return a.Encode(p.base)
	}
	return p.trainer.Model().Encode()
}

// sharedFolder is a folder that inference servers read: one folder a version.
type sharedFolder struct {
	root     string // of the run
	base     string // the model that adapters change, as the servers were started with
	language language
}

// sharedWeights is the object of a version that lies in a shared folder.
type sharedWeights struct {
	Folder  string `json:"folder"` // within the run's
	Adapter bool   `json:"adapter"`
}

func newSharedFolder(dir, run, base string, l language) (*sharedFolder, error) {
	f := &sharedFolder{root: filepath.Join(dir, run), base: base, language: l}
	if err := os.MkdirAll(f.root, 0o755); err != nil {
		return nil, forager.WithHint(fmt.Errorf("folder for weights: %w", err), "policy.remote.weights_dir must be a folder that learner and servers share")
	}
	return f, nil
}

// put writes the trainer's weights and gives the object that names them.
func (f *sharedFolder) put(name string, trainer *lm.Trainer) ([]byte, error) {
	adapter := trainer.Adapter()
	err := wholeFolder(filepath.Join(f.root, name), func(temp string) error {
		if adapter != nil {
			return adapter.Save(temp, f.base)
		}
		model := trainer.Model()
		options := lm.SaveOptions{BFloat16: model.Arch.TorchDType == "bfloat16"} // as the servers compute
		return errors.Join(model.SaveAs(temp, options), f.language.save(temp))
	})
	if err != nil {
		return nil, err
	}
	return json.Marshal(sharedWeights{Folder: name, Adapter: adapter != nil})
}

// drop deletes the versions that old says are.
func (f *sharedFolder) drop(old func(name string) bool) error {
	entries, err := os.ReadDir(f.root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if old(e.Name()) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(f.root, e.Name())))
		}
	}
	return err
}
