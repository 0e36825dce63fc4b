package node

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/cluster"
)

// Status is how a run is at one moment. What could not be asked is absent, and
// Errors says why.
type Status struct {
	Run      string    `json:"run"`
	Time     time.Time `json:"time"`
	Version  string    `json:"version"` // of the program that asks
	Healthy  bool      `json:"healthy"`
	Findings []Finding `json:"findings"` // what is wrong, the worst first

	Bus     string           `json:"bus"` // URL
	Members []cluster.Member `json:"members"`
	Raft    RaftStatus       `json:"raft"`
	Lease   *LeaseStatus     `json:"lease,omitempty"`
	Weights *WeightsStatus   `json:"weights,omitempty"` // nil before the first are published
	Actors  []ActorStatus    `json:"actors"`
	Streams []StreamStatus   `json:"streams"` // the object store is one of them
	Credits *CreditStatus    `json:"credits,omitempty"`
	Replay  *cluster.Table   `json:"replay,omitempty"`
	Labels  LabelStatus      `json:"labels"`

	// Errors says what could not be asked, by its name: bus, members, cluster, or a
	// stream's.
	Errors map[string]string `json:"errors,omitempty"`

	expects expectation
	unknown bool // the bus has nothing of the run
}

// expectation is what the settings of a run let expect.
type expectation struct {
	retriever bool // actors ask the run's own
	judge     bool // turns are labelled
}

// Keys of Status.Errors, besides the names of streams.
const (
	askedBus     = "bus"
	askedMembers = "members"
	askedCluster = "cluster"
)

// objectStore is the name under which the object store is among the streams.
const objectStore = "objects"

// RaftStatus is the Raft group as its nodes see it.
type RaftStatus struct {
	Leader string  `json:"leader"` // "" when no node that is there knows one
	Term   uint64  `json:"term"`
	Voters []Voter `json:"voters"`
}

// Voter is a node of the Raft group that has a vote.
type Voter struct {
	Node    string `json:"node"`
	Member  string `json:"member,omitempty"` // process; "" when none says that it is this node
	Answers bool   `json:"answers"`          // it gives signs of life and knows the leader
}

// LeaseStatus is the learner's lease.
type LeaseStatus struct {
	Holder           string  `json:"holder"` // process; "" when it is free
	Epoch            uint64  `json:"epoch"`
	RemainingSeconds float64 `json:"remaining_seconds"` // by the clock of whoever asks
}

// WeightsStatus is the current manifest.
type WeightsStatus struct {
	Version    forager.Version `json:"version"`
	Step       uint64          `json:"step"`
	Epoch      uint64          `json:"epoch"`
	Bytes      int64           `json:"bytes"`
	AgeSeconds float64         `json:"age_seconds"`
}

// ActorStatus is how far an actor process is behind the current weights.
type ActorStatus struct {
	Name    string          `json:"name"`
	Policy  forager.Version `json:"policy"`
	Behind  forager.Version `json:"behind"`  // versions
	Seconds float64         `json:"seconds"` // for how long it has played its version
	Credits int             `json:"credits"` // groups that it plays
}

// StreamStatus is how full a stream is.
type StreamStatus struct {
	Name        string  `json:"name"`
	Messages    uint64  `json:"messages"`
	Bytes       uint64  `json:"bytes"`
	Waiting     uint64  `json:"waiting"` // not yet taken by anybody
	Held        int     `json:"held"`    // being worked on
	MaxMessages int64   `json:"max_messages,omitempty"`
	MaxBytes    int64   `json:"max_bytes,omitempty"`
	Fill        float64 `json:"fill"` // share of its limit, 0 to 1
}

// LabelStatus is the backlog of the reward servers.
type LabelStatus struct {
	Servers int    `json:"servers"` // that are there
	Waiting int    `json:"waiting"` // steps that wait for a judge
	Digests uint64 `json:"digests"` // messages that no server has taken yet
}

// Wrong counts the findings that make a run unhealthy.
func (s *Status) Wrong() int {
	n := 0
	for _, f := range s.Findings {
		if f.Level == LevelWrong {
			n++
		}
	}
	return n
}

// WriteJSON writes the status as indented JSON.
func (s *Status) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(s)
}

func streamStatus(name string, info bus.StreamInfo) StreamStatus {
	s := StreamStatus{
		Name: name, Messages: info.Messages, Bytes: info.Bytes, Waiting: info.Waiting, Held: info.Held,
		MaxMessages: info.MaxMessages, MaxBytes: info.MaxBytes,
	}
	if info.MaxMessages > 0 {
		s.Fill = float64(info.Messages) / float64(info.MaxMessages)
	}
	if info.MaxBytes > 0 {
		s.Fill = max(s.Fill, float64(info.Bytes)/float64(info.MaxBytes))
	}
	return s
}

// combine draws from the answers what follows from them.
func (s *Status) combine(state cluster.State) {
	flow := []string{string(bus.Credits), string(bus.Rollouts), string(bus.Digests), string(bus.Annotations), objectStore}
	slices.SortFunc(s.Streams, func(a, b StreamStatus) int { return slices.Index(flow, a.Name) - slices.Index(flow, b.Name) })
	s.Raft = raftStatus(s.Members)
	if s.Errors[askedCluster] == "" {
		l := state.Lease
		s.Lease = &LeaseStatus{Holder: l.Holder, Epoch: l.Epoch}
		if l.Holder != "" {
			s.Lease.RemainingSeconds = l.Expires.Sub(s.Time).Seconds()
		}
		if m := state.Manifest; m != nil {
			s.Weights = &WeightsStatus{Version: m.Version, Step: m.Step, Epoch: m.Epoch, Bytes: m.Bytes, AgeSeconds: max(0, s.Time.Sub(m.Time).Seconds())}
		}
	}
	for i := range s.Members {
		m := &s.Members[i]
		if m.Table != nil {
			s.Replay = m.Table
		}
		if m.Plays(forager.RoleRewardServer) {
			s.Labels.Servers++
			s.Labels.Waiting += m.Labels
		}
		if m.Plays(forager.RoleActor) && m.Policy != nil {
			a := ActorStatus{Name: m.Name, Policy: *m.Policy, Seconds: m.PolicySeconds, Credits: m.Credits}
			if s.Weights != nil && s.Weights.Version > a.Policy {
				a.Behind = s.Weights.Version - a.Policy
			}
			s.Actors = append(s.Actors, a)
		}
	}
	if credits := s.stream(bus.Credits); credits != nil && s.Errors[askedMembers] == "" {
		c := newCredits(bus.StreamInfo{Waiting: credits.Waiting, Held: credits.Held}, s.Members)
		s.Credits = &c
	}
	if digests := s.stream(bus.Digests); digests != nil {
		s.Labels.Digests = digests.Waiting
	}
}

// stream finds a stream by name, nil when it could not be asked.
func (s *Status) stream(name bus.Stream) *StreamStatus {
	for i := range s.Streams {
		if s.Streams[i].Name == string(name) {
			return &s.Streams[i]
		}
	}
	return nil
}

// has says whether some process plays a role.
func (s *Status) has(role forager.Role) bool {
	return slices.ContainsFunc(s.Members, func(m cluster.Member) bool { return m.Plays(role) })
}

// member says whether a process is there.
func (s *Status) member(name string) bool {
	return slices.ContainsFunc(s.Members, func(m cluster.Member) bool { return m.Name == name })
}

// raftStatus puts together what the nodes of the Raft group say of it. The
// leader decides who votes, or the node with the highest term while there is none.
func raftStatus(members []cluster.Member) RaftStatus {
	var best *cluster.View
	for _, m := range members {
		if v := m.Raft; v != nil && (best == nil || newer(v, best)) {
			best = v
		}
	}
	if best == nil {
		return RaftStatus{}
	}
	r := RaftStatus{Leader: best.Leader, Term: best.Term}
	for _, node := range best.Voters {
		voter := Voter{Node: node}
		for _, m := range members {
			if v := m.Raft; v != nil && v.Node == node {
				voter.Member, voter.Answers = m.Name, r.Leader == "" || v.Leader != ""
			}
		}
		r.Voters = append(r.Voters, voter)
	}
	return r
}

// newer says whether a view tells more than another: it is of somebody who knows
// a leader, of a later term, or the leader's own.
func newer(v, than *cluster.View) bool {
	switch {
	case (v.Leader != "") != (than.Leader != ""):
		return v.Leader != ""
	case v.Term != than.Term:
		return v.Term > than.Term
	default:
		return v.Node == v.Leader
	}
}

// answering counts the voters that answer, of how many.
func (r RaftStatus) answering() (answer, of int, silent []string) {
	for _, v := range r.Voters {
		if v.Answers {
			answer++
		} else {
			silent = append(silent, v.Node)
		}
	}
	return answer, len(r.Voters), silent
}

// Versions lists the program versions of the members with how many have each,
// the most frequent first.
func (s *Status) Versions() []string {
	count := map[string]int{}
	for _, m := range s.Members {
		count[m.Version]++
	}
	var list []string
	for version := range count {
		list = append(list, version)
	}
	slices.SortFunc(list, func(a, b string) int {
		if count[a] != count[b] {
			return count[b] - count[a]
		}
		return strings.Compare(a, b)
	})
	for i, version := range list {
		list[i] = fmt.Sprintf("%s (%d)", version, count[version])
	}
	return list
}
