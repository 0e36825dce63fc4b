// Package forager is the vocabulary of the system: what a task, a credit, a
// rollout, a turn, an annotation and a weights manifest are, and the errors
// that every room understands.
//
// The mental model is five hops in one direction. The learner issues a Credit;
// an actor takes it, plays a Group of Rollouts of one Task and publishes them;
// replay stores them; the reward server labels their Turns with Annotations,
// late or never; the learner samples groups, updates the policy and publishes a
// Manifest. Nobody waits for a reply.
//
// Every package may import this one. It imports the standard library only, so
// that reading it needs nothing else.
package forager
