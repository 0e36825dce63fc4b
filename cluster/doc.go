// Package cluster is who agrees: a Raft group that keeps the few small facts
// on which every process of a run must have one opinion. These are the run's
// identity, the learner's lease and epoch, the current weights manifest and the
// newest checkpoints. Rollouts, weights and metrics never pass through it.
//
// It has three parts. State is a pure state machine: commands in, results out,
// no clock, no random source, no I/O. A small fsm puts it behind Raft. Cluster
// opens, runs and closes one node of the group. Everybody else holds a Client,
// which speaks JSON over any transport of bytes; in a run that is the bus.
//
// Who is there is no matter of agreement: Roster knows it from signs of life,
// with or without a Raft group.
//
// # The group
//
// Without Config.Listen the group is one node in one process. Otherwise three or
// five voters speak over TCP, with mutual TLS when Config.TLS is set. All founders
// have the same list of peers, and each founds the same group from it when its
// directory is empty. A later node joins without a vote and is given one when it
// has caught up.
//
// A connection begins with a handshake, which names the run, both nodes and the
// directory of the dialler. It keeps apart what must not meet: nodes of other
// runs, an address that leads to another node, two nodes with one id.
//
// Any node answers any request: one that does not lead passes it to the leader,
// once. A Client tries again while the group changes its leader.
//
// A node whose disk fails writes nothing more and ends; the others go on. One that
// meets a log entry of a newer program keeps the entry, and does not lead.
//
// # Fencing
//
// A learner may publish only while it holds the newest epoch. AcquireLease
// gives a new, higher epoch each time it succeeds, also to the same holder, so
// that a process which was killed, or is only believed to be dead, publishes
// nothing after its successor has started. Time decides one thing only: when
// somebody else may take the lease. A holder whose lease has run out, and which
// nobody has replaced, still publishes; its epoch is still the newest.
//
// # Versions never go back
//
// State refuses a manifest whose version is not above the current one. The same
// version again is accepted only with the same digest: that is a retry. Hence
// the learner's rule: write the checkpoint of version v to disk before
// publishing the manifest of version v. Then each published version has a
// checkpoint, and a learner that was killed anywhere resumes from its newest
// complete checkpoint at a version that is at or above the published one. It
// publishes that version again (same bytes, same digest) or goes on. Breaking
// the rule costs progress and not safety: publishing answers forager.ErrStale
// until the learner has passed the published version.
//
// # Clocks
//
// The node that is Raft leader stamps each command with its own clock, so that
// clients' clocks play no part in any decision. Clocks of leaders may be hours
// apart: the first command of a new leader puts the lease into its time, and the
// lease then runs for its whole length.
//
// Errors keep their sentinels (forager.ErrFenced, forager.ErrStale, ...) across
// the wire. Every command may be repeated when its outcome is unknown.
//
// The package imports the root package and is the only one to import
// hashicorp/raft. Package node and the commands import it.
package cluster
