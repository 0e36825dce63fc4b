package bus

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/forager-rl/forager"
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
	// members has the last word of each process; see Announce. It lives in memory.
	members Stream = "members"
)

// allStreams lists them in the order of Config.streams.
func allStreams() []Stream { return []Stream{Credits, Rollouts, Digests, Annotations, claims, members} }

// Services, topics and objects of a run that permissions speak of.
const (
	// ServiceCluster answers for the Raft group. Each of its nodes also serves
	// "cluster-<id>".
	ServiceCluster = "cluster"
	// ServiceReplay lends groups to the learner.
	ServiceReplay = "replay"

	// TopicWeights tells of published weights.
	TopicWeights = "weights"
	// TopicRewardModel tells of a newer reward model.
	TopicRewardModel = "reward-model"

	// ObjectRewardModel is the run's newest reward model. It has a store of its own,
	// so that who writes it can touch no weights.
	ObjectRewardModel = "reward-model"
)

// All names on the server, for run R:
//
//	stream     forager-R-<stream>
//	  subject  forager.R.<stream>.<message id>
//	  consumer workers                           shared by all who fetch
//	  subject  forager.R.members.<role>.<name>   of announcements alone; the name in base64
//	objects    forager-R, forager-R-model        object store buckets
//	service    forager.R.service.<name>          queue group "servers"
//	           forager.R.service.<name>.<id>     for a service called "<name>-<id>"
//	notice     forager.R.notice.<topic>
//	inbox      _INBOX_<role>.>                   replies to processes with that role's credentials
type names struct{ run string }

const (
	workers = "workers"
	servers = "servers"
)

func (n names) stream(s Stream) string { return "forager-" + n.run + "-" + string(s) }
func (n names) subject(s Stream, id string) string {
	return "forager." + n.run + "." + string(s) + "." + id
}
func (n names) notice(topic string) string { return "forager." + n.run + ".notice." + topic }

// service is the subject of a service. An instance has a token of its own, so that
// one permission covers all instances.
func (n names) service(name string) string {
	return "forager." + n.run + ".service." + strings.Replace(name, "-", ".", 1)
}

// member is the subject of what a process announces.
func (n names) member(role forager.Role, name string) string {
	return n.subject(members, string(cmp.Or(role, anyRole))+"."+name)
}

// anyRole stands for the role of a process without credentials.
const anyRole forager.Role = "any"

// bucket is the object store that holds an object.
func (n names) bucket(object string) string {
	if object == ObjectRewardModel {
		return "forager-" + n.run + "-model"
	}
	return "forager-" + n.run
}

// buckets lists the object stores: of weights, of the reward model.
func (n names) buckets() []string { return []string{n.bucket(""), n.bucket(ObjectRewardModel)} }

// inbox is where replies to a role's processes go.
func inbox(role forager.Role) string { return inboxPrefix + string(role) }

const inboxPrefix = "_INBOX_"

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
func (s Stream) fetched() bool { return s != Annotations && s != claims && s != members }

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

	announced := base(members)
	announced.Subjects = []string{names{c.Run}.member("*", "*")}
	announced.Storage, announced.Retention, announced.Discard = jetstream.MemoryStorage, jetstream.LimitsPolicy, jetstream.DiscardOld
	announced.MaxAge, announced.MaxMsgsPerSubject, announced.AllowDirect = MemberAge, 1, true
	announced.MaxMsgs, announced.MaxBytes, announced.Duplicates = maxMembers, maxMembers*MaxAnnouncement, time.Second

	return []jetstream.StreamConfig{credits, rollouts, digests, annotations, claimed, announced}
}

// stores is the table of object stores, in the order of names.buckets.
func (c *Config) stores() []jetstream.ObjectStoreConfig {
	buckets := names{c.Run}.buckets()
	return []jetstream.ObjectStoreConfig{
		{Bucket: buckets[0], MaxBytes: c.MaxObjects},
		{Bucket: buckets[1], MaxBytes: rewardModelBytes},
	}
}

// rewardModelBytes bounds the store of the reward model: a few of 71 kB each.
const rewardModelBytes = 64 << 20

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
