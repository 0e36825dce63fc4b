package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/forager-rl/forager"
)

// Command is one change to the state. Exactly one of its pointers is set. Now
// is stamped by the node that proposes the command; what clients write there is
// ignored.
type Command struct {
	Now time.Time `json:"now"`

	SetRun          *SetRun          `json:"set_run,omitempty"`
	AcquireLease    *AcquireLease    `json:"acquire_lease,omitempty"`
	RenewLease      *RenewLease      `json:"renew_lease,omitempty"`
	ReleaseLease    *ReleaseLease    `json:"release_lease,omitempty"`
	PublishManifest *PublishManifest `json:"publish_manifest,omitempty"`
	AddCheckpoint   *AddCheckpoint   `json:"add_checkpoint,omitempty"`
}

// SetRun gives the group its run, once.
type SetRun struct {
	Run Run `json:"run"`
}

// AcquireLease asks for the learner's lease.
type AcquireLease struct {
	Holder string        `json:"holder"`
	TTL    time.Duration `json:"ttl"` // how long it lasts without renewal
}

// RenewLease extends the lease of a holder by its TTL.
type RenewLease struct {
	Holder string `json:"holder"`
	Epoch  uint64 `json:"epoch"`
}

// ReleaseLease gives the lease back, so that another learner need not wait.
type ReleaseLease struct {
	Holder string `json:"holder"`
	Epoch  uint64 `json:"epoch"`
}

// PublishManifest makes a weights manifest the current one. Its weights and its
// checkpoint are already stored.
type PublishManifest struct {
	Manifest forager.Manifest `json:"manifest"`
}

// AddCheckpoint records a complete checkpoint.
type AddCheckpoint struct {
	Epoch      uint64     `json:"epoch"`
	Checkpoint Checkpoint `json:"checkpoint"`
}

// Result is what a command answers.
type Result struct {
	// Lease is the lease after AcquireLease, RenewLease and ReleaseLease.
	Lease *Lease `json:"lease,omitempty"`
	// Manifest is the current manifest, answered to AcquireLease: a learner that
	// resumes below its version has lost a checkpoint.
	Manifest *forager.Manifest `json:"manifest,omitempty"`
}

// maxCommandBytes bounds one encoded command; real ones have a few hundred bytes.
const maxCommandBytes = 64 << 10

// encode gives the bytes of a command as they lie in the Raft log.
func (c Command) encode() ([]byte, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode cluster command: %w", err)
	}
	if len(data) > maxCommandBytes {
		return nil, fmt.Errorf("cluster command has %d bytes: at most %d are allowed", len(data), maxCommandBytes)
	}
	return data, nil
}

// errRetired means a command of an earlier version of this program that changes
// nothing any more.
var errRetired = errors.New("command of an earlier version")

// retired are those commands: services were once registered in the log.
type retired struct {
	Register       json.RawMessage `json:"register,omitempty"`
	Deregister     json.RawMessage `json:"deregister,omitempty"`
	ExpireServices json.RawMessage `json:"expire_services,omitempty"`
}

// decodeCommand is the reverse of encode. A field that this program does not
// know means a command of a newer program: forager.ErrSchema. One that an
// earlier program wrote, and that nobody needs any more, answers errRetired.
func decodeCommand(data []byte) (Command, error) {
	var c struct {
		Command
		retired
	}
	if err := decodeStrict(data, &c); err != nil {
		return Command{}, fmt.Errorf("decode cluster command: %w: %w", forager.ErrSchema, err)
	}
	if c.Register != nil || c.Deregister != nil || c.ExpireServices != nil {
		return Command{}, errRetired
	}
	return c.Command, nil
}

// decodeStrict reads exactly one JSON value into v and refuses unknown fields.
func decodeStrict(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("trailing bytes after the value")
	}
	return nil
}
