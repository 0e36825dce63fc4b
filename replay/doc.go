// Package replay keeps groups between actors and learner: tables made of a
// sampler, a remover and a rate limiter (after DeepMind Reverb, Cassirer et al.,
// arXiv 2102.04736), on disk, joined with annotations at the moment of sampling.
// It imports the root package and batch; node imports it.
//
// The mental model is a queue with receipts. Insert stores a batch of whole
// groups before it returns, so an acknowledged batch is safe. Sample lends
// groups to the learner. Commit, called once the learner's checkpoint is
// durable, forgets them. Begin, called when a learner starts, takes back
// whatever was lent and not committed, so that a resumed learner is offered
// exactly what its checkpoint has not consumed, in the same order. A group is
// stored once for ever: a second copy, however late, is refused.
//
// On disk are segments, append-only files of framed batches as they came in, and
// a journal of what was removed. Whatever is in memory is rebuilt from the two.
// Batches are never re-encoded: a sample answers with the bytes that the actor
// wrote.
//
// Table is the store, Service runs one behind a message bus, Client asks a
// Service. One process at a time may open a directory; its owner holds the lock.
package replay
