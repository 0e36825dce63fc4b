package bus

import (
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Stream names one of the streams of a run.
type Stream string

// The streams.
const (
	// Credits waits for actors. Refuses when full. A message id is queued once.
	Credits Stream = "credits"
	// Rollouts waits for replay. Refuses when full. A message id is queued once.
	Rollouts Stream = "rollouts"
	// Digests waits for the reward server. Drops its oldest when full.
	Digests Stream = "digests"
	// Annotations is kept whole, as the source of truth about labels; it is read
	// with Replay and Follow. Refuses when full.
	Annotations Stream = "annotations"

	// claims has one message for each key that is claimed; Claim and Release alone
	// touch it. Drops its oldest when full.
	claims Stream = "claims"
)

// allStreams lists them in the order of Config.streams.
func allStreams() []Stream { return []Stream{Credits, Rollouts, Digests, Annotations, claims} }

// All names on the server, for run R:
//
//	stream     forager-R-<stream>
//	  subject  forager.R.<stream>.<message id>
//	  consumer workers                           shared by all who fetch
//	objects    forager-R                         an object store bucket
//	service    forager.R.service.<name>          queue group "servers"
//	notice     forager.R.notice.<topic>
type names struct{ run string }

const (
	workers = "workers"
	servers = "servers"
)

func (n names) stream(s Stream) string { return "forager-" + n.run + "-" + string(s) }
func (n names) subject(s Stream, id string) string {
	return "forager." + n.run + "." + string(s) + "." + id
}
func (n names) bucket() string             { return "forager-" + n.run }
func (n names) service(name string) string { return "forager." + n.run + ".service." + name }
func (n names) notice(topic string) string { return "forager." + n.run + ".notice." + topic }

// publishWindow is how long the server remembers message ids of streams that do
// not queue an id once: long enough for the retries of one publish.
const publishWindow = 2 * time.Minute

// queuedOnce says that a message id can be in the stream only once: it is
// refused silently as long as a message with that id waits or is being worked
// on, across restarts of the server, and taken again after the ack. Each id has
// a subject of its own, which may hold one message: unlike a window of time this
// forgets nothing while it matters and remembers nothing afterwards.
func (s Stream) queuedOnce() bool { return s == Credits || s == Rollouts }

// fetched says that messages are worked off through the shared consumer.
func (s Stream) fetched() bool { return s != Annotations && s != claims }

// streams is the table of streams.
func (c *Config) streams() []jetstream.StreamConfig {
	base := func(s Stream) jetstream.StreamConfig {
		n := names{c.Run}
		return jetstream.StreamConfig{
			Name: n.stream(s), Subjects: []string{n.subject(s, "*")},
			Storage: jetstream.FileStorage, Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew,
			Duplicates: publishWindow,
		}
	}
	once := func(cfg jetstream.StreamConfig) jetstream.StreamConfig {
		cfg.MaxMsgsPerSubject, cfg.DiscardNewPerSubject = 1, true
		return cfg
	}

	credits := once(base(Credits))
	credits.MaxMsgs = c.MaxCredits

	rollouts := once(base(Rollouts))
	rollouts.MaxBytes = c.MaxRollouts

	digests := base(Digests)
	digests.MaxBytes, digests.Discard = c.MaxDigests, jetstream.DiscardOld

	annotations := base(Annotations)
	annotations.MaxBytes, annotations.Retention = c.MaxAnnotations, jetstream.LimitsPolicy

	claimed := base(claims)
	claimed.MaxBytes, claimed.MaxAge, claimed.MaxMsgsPerSubject = claimBytes, ClaimAge, 1
	claimed.Retention, claimed.Discard, claimed.AllowDirect = jetstream.LimitsPolicy, jetstream.DiscardOld, true

	return []jetstream.StreamConfig{credits, rollouts, digests, annotations, claimed}
}

// consumer is the one durable consumer of a stream that is fetched from.
// Messages come again until they are acked, however often that takes.
func (c *Config) consumer() jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: workers, AckPolicy: jetstream.AckExplicitPolicy, AckWait: c.AckWait, MaxDeliver: -1, MaxAckPending: -1,
		MaxWaiting: 4096,
	}
}

// isToken reports whether a name can be one part of a subject.
func isToken(s string) bool {
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_') {
			return false
		}
	}
	return s != ""
}

// checkName reports a service or topic that cannot be a part of a subject.
func checkName(kind, name string) error {
	if !isToken(name) {
		return fmt.Errorf("bus: %s %q: want letters, digits, - and _", kind, name)
	}
	return nil
}

// checkID reports a message id that cannot be a part of a subject.
func checkID(id string) error {
	if len(id) > 200 || strings.ContainsAny(id, ".*> \t\r\n\x00") {
		return fmt.Errorf("bus: message id %q: want at most 200 bytes without spaces and . * >", id)
	}
	return nil
}
