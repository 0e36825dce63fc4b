// Package reward scores episodes with pure functions: no I/O, no clock, no
// state. It holds the field's answer metrics (exact match, token F1, sub-EM),
// the format reward of Search-R1 v0.3, evidence recall, and the recipe that
// turns rewards and late labels into the number that the learner uses.
//
// Everything is scored on the response alone: never on the prompt (whose
// example answer is not the policy's) and never on observations.
//
// It imports the root package and the standard library only; every layer above
// may import it.
package reward
