package cluster

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/forager-rl/forager"
)

// Member is one process of a run, as it describes itself. Times that others
// compare are durations, measured by the member itself: clocks of different
// machines are never compared.
type Member struct {
	Name    string         `json:"name"` // unique in the run: host and process id
	Roles   []forager.Role `json:"roles"`
	Host    string         `json:"host"`
	PID     int            `json:"pid"`
	Version string         `json:"version"` // of the program
	Started time.Time      `json:"started"` // by the member's clock
	// Addresses says where its services are reached: a URL by service name.
	Addresses map[string]string `json:"addresses,omitempty"`

	// Policy is the policy version that it plays, or has published; nil when it
	// does neither.
	Policy *forager.Version `json:"policy,omitempty"`
	// PolicySeconds is for how long it has been that version.
	PolicySeconds float64 `json:"policy_seconds,omitempty"`
	// Epoch is the learner epoch under which it learns; 0 without a lease.
	Epoch uint64 `json:"epoch,omitempty"`
	// Step is the learner's newest step.
	Step uint64 `json:"step,omitempty"`

	// Credits is how many groups an actor plays.
	Credits int `json:"credits,omitempty"`
	// Labels is how many steps of a reward server wait for a judge.
	Labels int `json:"labels,omitempty"`
	// Table is what replay keeps; nil for others.
	Table *Table `json:"table,omitempty"`
	// Raft is the group as a cluster node sees it; nil for others.
	Raft *View `json:"raft,omitempty"`

	// Waits says what its roles wait for, in words; empty when all work.
	Waits []Wait `json:"waits,omitempty"`
}

// Wait is something that a role waits for.
type Wait struct {
	Role    forager.Role `json:"role"`
	What    string       `json:"what"`    // such as "the first weights"
	Seconds float64      `json:"seconds"` // for how long
}

// Table is a replay table. The counts are since its process was started.
type Table struct {
	Groups    int    `json:"groups"`
	Lent      int    `json:"lent"`     // of these, with the learner
	Capacity  int    `json:"capacity"` // in groups
	Bytes     int64  `json:"bytes"`    // on disk
	Inserted  uint64 `json:"inserted"`
	Committed uint64 `json:"committed"` // learned from, for good
	Stale     uint64 `json:"stale"`     // given up as too old
	Evicted   uint64 `json:"evicted"`   // given up because the table was full
	Corrupt   uint64 `json:"corrupt"`   // could not be read back
}

// View is the Raft group as one of its nodes sees it.
type View struct {
	Node   string   `json:"node"`
	Leader string   `json:"leader"` // "" when it knows none
	Term   uint64   `json:"term"`
	Voters []string `json:"voters"` // by node id, ascending
}

// Plays says whether the member has a role.
func (m *Member) Plays(role forager.Role) bool {
	for _, r := range m.Roles {
		if r == role {
			return true
		}
	}
	return false
}

// maxMemberBytes bounds one description; real ones have a few hundred bytes.
const maxMemberBytes = 16 << 10

// encode gives the bytes of a member as they are announced.
func (m *Member) encode() ([]byte, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode member %s: %w", m.Name, err)
	}
	if len(data) > maxMemberBytes {
		return nil, fmt.Errorf("member %s has %d bytes: at most %d are allowed", m.Name, len(data), maxMemberBytes)
	}
	return data, nil
}

// decodeMember is the reverse of encode. Fields that this program does not know
// are ignored: processes of different versions see each other.
func decodeMember(data []byte) (Member, error) {
	var m Member
	if err := json.Unmarshal(data, &m); err != nil {
		return Member{}, fmt.Errorf("decode member: %w: %w", forager.ErrSchema, err)
	}
	return m, nil
}
