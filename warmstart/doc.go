// Package warmstart makes the policy that training starts from: a tokenizer,
// then a small transformer that learns the protocol from demonstrations.
//
// A demonstration is an episode in an invented world, played by a script
// through the same actor.Player that plays real episodes, so that its tokens
// and mask are exactly what the policy will meet. Every demonstration has a
// world of its own with fresh names: the policy learns to read and copy, not to
// remember, and never sees an entity of the real tasks.
//
// The curriculum has three stages: questions of one hop, clean demonstrations of
// one to three hops, and at the end demonstrations that mostly answer too soon,
// on purpose. The policy that comes out can follow a chain of passages and hardly
// ever does; that is what reinforcement learning is left to find. Without the
// last stage there would be little to learn.
//
// It is a layer-3 room like node: it wires others together. Only cmd/forager
// and node import it.
package warmstart
