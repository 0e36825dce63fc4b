// Package rewardsrv is the asynchronous annotator: it reads turn digests, asks a
// judge about each distinct search step once, publishes labels that replay joins
// when it samples, and distils them into a reward model.
//
// Nobody waits for it. Newest steps come first; whatever exceeds a bound is dropped
// and counted, and a label that is late or never comes is null, not 0. When it
// is dead or its judge is, learning goes on without these rewards.
//
// A label key is in exactly one state:
//
//	unseen     neither the ledger nor the index knows it
//	queued     waits for the judge; newest first, every n-th time the oldest
//	in flight  at the judge, or at that of another server
//	labelled   has a value
//	failed     two answers were of no use: null for good
//
// The stream of labels is the source of truth about the last two; package
// labelstore indexes it on the local disk, and the ledger keeps in memory what
// was used last. No label is paid for twice: a server claims a key before it
// asks, follows the stream for the labels of others, and takes a key over when
// its holder has shown no sign of life for a lease.
//
// The way of a digest: intake.go (which labels does it want), ledger.go (what is
// known, what waits), work.go (claim, ask), publish.go (stream), follow.go (back
// from the stream, into the index). Package rubric says what is asked, package
// judge whom, package rewardmodel what is distilled (distil.go, study.go).
//
// It imports the root package, package reward, its own four rooms, an LRU list and
// the Prometheus client. Streams, claims, models and tasks come in through the
// small interfaces in server.go and distil.go; node adapts the bus to them.
package rewardsrv
