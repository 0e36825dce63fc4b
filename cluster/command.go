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
// and Term are set by the node that proposes the command; what clients write
// there is ignored.
type Command struct {
	Now  time.Time `json:"now"`
	Term uint64    `json:"term,omitempty"` // of the leader; in another term the command changes nothing

	RebaseLease *RebaseLease `json:"rebase_lease,omitempty"`

	SetRun          *SetRun          `json:"set_run,omitempty"`
	AcquireLease    *AcquireLease    `json:"acquire_lease,omitempty"`
	RenewLease      *RenewLease      `json:"renew_lease,omitempty"`
	ReleaseLease    *ReleaseLease    `json:"release_lease,omitempty"`
	PublishManifest *PublishManifest `json:"publish_manifest,omitempty"`
	AddCheckpoint   *AddCheckpoint   `json:"add_checkpoint,omitempty"`
}

// RebaseLease puts the lease into the time of a new leader, whose clock may be
// hours off that of the last one. It is the first command of a term; clients
// cannot send it. The lease then runs for at most its TTL from Now and, with
// Extend, for all of it: its holder could not renew it while nobody led.
type RebaseLease struct {
	Extend bool `json:"extend"`
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

// errRetired marks a command of an older program that means nothing any more.
var errRetired = fmt.Errorf("cluster command of an older program: %w", forager.ErrSchema)

// retired lists the commands that older programs wrote: services are announced
// on the bus now.
func retired() []string { return []string{"register", "deregister", "expire_services"} }

// decodeCommand is the reverse of encode. A field that this program does not
// know means a command of a newer program: forager.ErrSchema; or of an older one:
// errRetired.
func decodeCommand(data []byte) (Command, error) {
	var c Command
	err := decodeStrict(data, &c)
	if err == nil {
		return c, nil
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(data, &fields) == nil {
		for _, name := range retired() {
			if _, ok := fields[name]; ok {
				return Command{}, errRetired
			}
		}
	}
	return Command{}, fmt.Errorf("decode cluster command: %w: %w", forager.ErrSchema, err)
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
