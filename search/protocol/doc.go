// Package protocol is the tag protocol of a search episode, as pure functions
// over text: what an action is, how passages are shown, what a well-formed
// response looks like, and how a question becomes a prompt.
//
// It is Search-R1's protocol: the policy thinks in <think>, asks in <search>,
// reads what comes back in <information>, and ends with <answer>. Package
// actor, evaluation and rewards may import it; it imports the root package
// only.
package protocol
