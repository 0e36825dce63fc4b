package cluster

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"github.com/forager-rl/forager"
)

// handshakeVersion is the version of what two nodes say to each other before
// Raft speaks, and of how Raft then speaks.
const handshakeVersion = 1

// Bounds of a handshake.
const (
	maxHandshakeBytes = 2 << 10 // of one message
	maxNameBytes      = 128     // of a group, node or instance
	maxReasonBytes    = 512
)

// handshakeMagic begins each message: a stranger is told apart by four bytes.
const handshakeMagic = "frgr"

// hello is what a node says that has dialled another one.
type hello struct {
	Version  int    `json:"version"`
	Cluster  string `json:"cluster"`  // name of the group, the run id
	From     string `json:"from"`     // node id of the dialler
	To       string `json:"to"`       // node id that it means to reach
	Instance string `json:"instance"` // of the dialler's directory
}

// welcome is the answer: a refusal when Text is set.
type welcome struct {
	Version  int    `json:"version"`
	Instance string `json:"instance"`
	Reason   reason `json:"reason,omitempty"`
	Text     string `json:"text,omitempty"`
}

// reason is why a connection was refused.
type reason string

const (
	refusedProtocol  reason = "protocol"  // another version of the handshake, or none
	refusedCluster   reason = "cluster"   // of another group
	refusedTarget    reason = "target"    // meant for another node
	refusedInstance  reason = "instance"  // two nodes live under one id
	refusedSecurity  reason = "security"  // TLS, or a certificate
	refusedTooMany   reason = "too_many"  // handshakes at once
	refusedMalformed reason = "malformed" // names that are none, or a broken connection
)

// reasons lists them all, for counting.
func reasons() []reason {
	return []reason{refusedProtocol, refusedCluster, refusedTarget, refusedInstance, refusedSecurity, refusedTooMany, refusedMalformed}
}

// refusal is an error that a person can act on.
type refusal struct {
	reason reason
	text   string
}

func (r *refusal) Error() string { return r.text }

func refuse(why reason, format string, args ...any) *refusal {
	text := fmt.Sprintf(format, args...)
	return &refusal{why, text[:min(len(text), maxReasonBytes)]}
}

// identity is who this node is.
type identity struct{ cluster, node, instance string }

// hello is what this node says to another one.
func (i identity) hello(to string) hello {
	return hello{Version: handshakeVersion, Cluster: i.cluster, From: i.node, To: to, Instance: i.instance}
}

// check says why this node does not talk to the sender of a hello, or nil.
func (i identity) check(h hello) *refusal {
	switch {
	case h.Version != handshakeVersion:
		return refuse(refusedProtocol, "node %.128q speaks version %d of the handshake, %q speaks %d: run the same program on all nodes", h.From, h.Version, i.node, handshakeVersion)
	case !isName(h.From), !isName(h.Instance), len(h.From) > maxNameBytes, len(h.Instance) > maxNameBytes:
		return refuse(refusedMalformed, "the handshake came from node %.128q, instance %.128q: no such names exist", h.From, h.Instance)
	case h.Cluster != i.cluster:
		return refuse(refusedCluster, "node %q belongs to run %.128q, and %q to run %q", h.From, h.Cluster, i.node, i.cluster)
	case h.To != i.node:
		return refuse(refusedTarget, "node %q meant to reach %.128q, and this is %q: two entries of cluster.peers lead here", h.From, h.To, i.node)
	case h.From == i.node:
		return refuse(refusedInstance, "two nodes have the id %q (directories %.8s and %.8s): give each its own cluster.node_id", h.From, i.instance, h.Instance)
	}
	return nil
}

// writeMessage sends one message of a handshake.
func writeMessage(w io.Writer, message any) error {
	body, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("encode handshake: %w", err)
	}
	if len(body) > maxHandshakeBytes {
		return fmt.Errorf("handshake has %d bytes: at most %d are allowed", len(body), maxHandshakeBytes)
	}
	frame := binary.BigEndian.AppendUint16([]byte(handshakeMagic), uint16(len(body)))
	_, err = w.Write(append(frame, body...))
	return err
}

// readMessage reads one message of a handshake and not a byte more. What is none
// gives a refusal; an unreadable body gives forager.ErrSchema.
func readMessage(r io.Reader, message any) error {
	var head [len(handshakeMagic) + 2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	if !bytes.HasPrefix(head[:], []byte(handshakeMagic)) {
		if head[1] == 3 && (head[0] == 21 || head[0] == 22) { // a TLS record: alert, handshake
			return refuse(refusedSecurity, "one side speaks TLS and the other does not: set security.dir on all nodes, or on none")
		}
		return refuse(refusedProtocol, "what came is no handshake of forager: %q", head[:])
	}
	size := binary.BigEndian.Uint16(head[len(handshakeMagic):])
	if size > maxHandshakeBytes {
		return refuse(refusedProtocol, "handshake has %d bytes: at most %d are allowed", size, maxHandshakeBytes)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	if err := json.Unmarshal(body, message); err != nil {
		return fmt.Errorf("decode handshake: %w: %w", forager.ErrSchema, err)
	}
	return nil
}
