// Package actor turns credits into rollouts: credit in, a whole group of
// multi-turn search episodes out.
//
// A Player plays one episode: it lets the policy act, finds the first action
// tag, asks the retriever, and inserts the observation, token in and token out.
// An Actor plays groups, several at once, and hands each to its Sink before it
// acknowledges the credit, so that an actor that dies loses nothing: the credit
// comes again.
//
// Only node may import it, and commands that play episodes for evaluation.
package actor
