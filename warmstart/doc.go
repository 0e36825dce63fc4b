// Package warmstart makes the policy that training starts from: a tokenizer,
// then a small transformer that learns the protocol from demonstrations.
//
// A demonstration is an episode in an invented world, played by a script
// through the same actor.Player that plays real episodes, so that its tokens
// and mask are exactly what the policy will meet. Every demonstration has a
// world of its own with fresh names: the policy learns to read and copy, not to
// remember, and never sees an entity of the real tasks. Most multi-hop
// demonstrations stop too early on purpose. They leave reinforcement learning
// something to find; clean ones would teach the whole task (Config.StopEarly).
//
// It is a layer-3 room like node: it wires others together. Only cmd/forager
// and node import it.
package warmstart
