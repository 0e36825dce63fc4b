package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/forager-rl/forager"
)

// Limits of what the state keeps. They are part of its behaviour, and so are
// the same on each node.
const (
	MaxCheckpoints = 16 // older records are dropped; the files are not touched
	maxTTL         = time.Hour
)

// State is all that the group agrees on. It is a pure value: equal command
// sequences give equal states on each node and in each process.
type State struct {
	Run         Run               `json:"run"`
	Lease       Lease             `json:"lease"`
	Manifest    *forager.Manifest `json:"manifest,omitempty"`    // nil before the first one
	Checkpoints []Checkpoint      `json:"checkpoints,omitempty"` // ascending by step, at most MaxCheckpoints
}

// Run is the identity of what the group works on.
type Run struct {
	ID           string `json:"id"`
	ConfigDigest string `json:"config_digest"` // of the resolved settings that must not change within a run
}

// Lease says which learner may publish. Epoch counts the grants and never
// decreases; Holder is empty when the lease is free.
type Lease struct {
	Holder  string        `json:"holder"`
	Epoch   uint64        `json:"epoch"` // the fencing token; 0 before the first grant
	TTL     time.Duration `json:"ttl"`
	Expires time.Time     `json:"expires"`
}

// Checkpoint records one complete checkpoint of the learner.
type Checkpoint struct {
	Epoch   uint64          `json:"epoch,omitempty"` // of the learner that recorded it, which the state fills in; 0: not known
	Step    uint64          `json:"step"`
	Version forager.Version `json:"version"`
	Path    string          `json:"path"` // relative to the run directory
	Digest  string          `json:"digest"`
}

// Apply makes one change. On an error the state is as it was. The errors are
//   - forager.ErrFenced: the epoch of the command is not the newest;
//   - forager.ErrStale: the manifest's version is below the current one, or is
//     the same with other weights; the checkpoint is older than one of its epoch;
//   - forager.ErrInUse: another holder has the lease and it has not run out;
//   - forager.ErrSchema: the command is unknown to this program;
//   - ErrOtherRun: the group, or the manifest, belongs to another run.
func (s *State) Apply(c Command) (Result, error) {
	if n := c.count(); n != 1 {
		return Result{}, fmt.Errorf("cluster command with %d known changes: %w", n, forager.ErrSchema)
	}
	switch {
	case c.RebaseLease != nil:
		s.rebase(*c.RebaseLease, c.Now)
		return Result{}, nil
	case c.SetRun != nil:
		return Result{}, s.setRun(c.SetRun.Run)
	case c.AcquireLease != nil:
		return s.acquire(*c.AcquireLease, c.Now)
	case c.RenewLease != nil:
		return s.renew(*c.RenewLease, c.Now)
	case c.ReleaseLease != nil:
		return s.release(*c.ReleaseLease)
	case c.PublishManifest != nil:
		return Result{}, s.publish(c.PublishManifest.Manifest)
	default:
		return Result{}, s.addCheckpoint(*c.AddCheckpoint)
	}
}

// count is the number of changes that the command asks for.
func (c Command) count() int {
	n := 0
	for _, set := range []bool{
		c.RebaseLease != nil, c.SetRun != nil, c.AcquireLease != nil, c.RenewLease != nil, c.ReleaseLease != nil,
		c.PublishManifest != nil, c.AddCheckpoint != nil,
	} {
		if set {
			n++
		}
	}
	return n
}

func (s *State) setRun(run Run) error {
	switch {
	case run.ID == "":
		return errors.New("set run: the run id is empty")
	case s.Run == run, s.Run == Run{}:
		s.Run = run
		return nil
	case s.Run.ID != run.ID:
		return fmt.Errorf("%w: it keeps run %q, not %q", ErrOtherRun, s.Run.ID, run.ID)
	default:
		return forager.WithHint(
			fmt.Errorf("%w: run %q was started with settings of digest %q, these have %q", ErrOtherRun, run.ID, s.Run.ConfigDigest, run.ConfigDigest),
			"resume with the settings in the run directory, or start a new run")
	}
}

// acquire gives the lease to a holder when it is free, has run out or is the
// holder's own, each time under a new epoch.
func (s *State) acquire(a AcquireLease, now time.Time) (Result, error) {
	if a.Holder == "" {
		return Result{}, errors.New("acquire lease: the holder is empty")
	}
	if a.TTL <= 0 || a.TTL > maxTTL {
		return Result{}, fmt.Errorf("acquire lease: ttl %v is not in (0, %v]", a.TTL, maxTTL)
	}
	if l := s.Lease; l.Holder != "" && l.Holder != a.Holder && now.Before(l.Expires) {
		return Result{}, fmt.Errorf("learner lease: %w by %q (epoch %d) for another %v",
			forager.ErrInUse, l.Holder, l.Epoch, l.Expires.Sub(now).Round(time.Millisecond))
	}
	s.Lease = Lease{Holder: a.Holder, Epoch: s.Lease.Epoch + 1, TTL: a.TTL, Expires: now.Add(a.TTL)}
	return Result{Lease: clonePointer(&s.Lease), Manifest: clonePointer(s.Manifest)}, nil
}

// renew extends the lease. One that has run out is extended as well as long as
// nobody has taken it: the epoch is still the newest.
func (s *State) renew(r RenewLease, now time.Time) (Result, error) {
	if r.Holder == "" || s.Lease.Holder != r.Holder || s.Lease.Epoch != r.Epoch {
		return Result{}, fmt.Errorf("renew lease of %q: %w", r.Holder, s.fenced(r.Epoch))
	}
	s.Lease.Expires = now.Add(s.Lease.TTL)
	return Result{Lease: clonePointer(&s.Lease)}, nil
}

// rebase puts the lease into the time of a new leader.
func (s *State) rebase(r RebaseLease, now time.Time) {
	if whole := now.Add(s.Lease.TTL); s.Lease.Holder != "" && (r.Extend || whole.Before(s.Lease.Expires)) {
		s.Lease.Expires = whole
	}
}

// release frees the lease and keeps the epoch. A second release is no error.
func (s *State) release(r ReleaseLease) (Result, error) {
	if s.Lease.Epoch != r.Epoch || (s.Lease.Holder != r.Holder && s.Lease.Holder != "") {
		return Result{}, fmt.Errorf("release lease of %q: %w", r.Holder, s.fenced(r.Epoch))
	}
	s.Lease.Holder, s.Lease.Expires = "", time.Time{}
	return Result{Lease: clonePointer(&s.Lease)}, nil
}

// fenced is the error of a command that carries an old epoch.
func (s *State) fenced(epoch uint64) error {
	return fmt.Errorf("epoch %d, the newest is %d of %q: %w", epoch, s.Lease.Epoch, s.Lease.Holder, forager.ErrFenced)
}

// holds says whether the epoch is that of the present holder.
func (s *State) holds(epoch uint64) bool {
	return s.Lease.Holder != "" && s.Lease.Epoch == epoch
}

func (s *State) publish(m forager.Manifest) error {
	switch {
	case m.Run == "" || m.Run != s.Run.ID:
		return fmt.Errorf("publish weights v%d of run %q: %w: it keeps run %q", m.Version, m.Run, ErrOtherRun, s.Run.ID)
	case m.Object == "" || m.Digest == "":
		return fmt.Errorf("publish weights v%d: the manifest has no object or no digest", m.Version)
	case !s.holds(m.Epoch):
		return fmt.Errorf("publish weights v%d: %w", m.Version, s.fenced(m.Epoch))
	}
	if cur := s.Manifest; cur != nil {
		retry := m.Version == cur.Version && m.Digest == cur.Digest
		if m.Version <= cur.Version && !retry {
			return forager.WithHint(
				fmt.Errorf("publish weights v%d: %w: v%d (%s)", m.Version, forager.ErrStale, cur.Version, cur.Digest),
				"write a version's checkpoint before publishing it")
		}
	}
	s.Manifest = clonePointer(&m)
	return nil
}

// addCheckpoint records a checkpoint. Records of the same or later steps belong
// to a history that a resumed learner has left, and are dropped. A learner resumes
// under a new epoch only: what is behind the newest of its own epoch is a request
// that was repeated, answered elsewhere, and came late.
func (s *State) addCheckpoint(a AddCheckpoint) error {
	if !s.holds(a.Epoch) {
		return fmt.Errorf("record checkpoint of step %d: %w", a.Checkpoint.Step, s.fenced(a.Epoch))
	}
	if a.Checkpoint.Path == "" || a.Checkpoint.Digest == "" {
		return fmt.Errorf("record checkpoint of step %d: it has no path or no digest", a.Checkpoint.Step)
	}
	added := a.Checkpoint
	added.Epoch = a.Epoch
	if n := len(s.Checkpoints); n > 0 {
		newest := s.Checkpoints[n-1]
		if newest.Epoch == a.Epoch && (added.Step < newest.Step || added.Step == newest.Step && added.Version < newest.Version) {
			return fmt.Errorf("record checkpoint of step %d, v%d: %w: this epoch has one of step %d, v%d",
				added.Step, added.Version, forager.ErrStale, newest.Step, newest.Version)
		}
	}
	kept := slices.DeleteFunc(slices.Clone(s.Checkpoints), func(c Checkpoint) bool { return c.Step >= added.Step })
	kept = append(kept, added)
	s.Checkpoints = kept[max(0, len(kept)-MaxCheckpoints):]
	return nil
}

// Clone is a deep copy.
func (s *State) Clone() State {
	c := *s
	c.Manifest = clonePointer(s.Manifest)
	c.Checkpoints = slices.Clone(s.Checkpoints)
	return c
}

// Digest is the SHA-256 of the state in hex: replicas agree when theirs are equal.
func (s *State) Digest() (string, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("digest cluster state: %w", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

func clonePointer[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}
