// Package learner is the step loop: it hands out credits, gathers groups until
// a step is full, asks the algorithm for advantages and gradients, updates the
// policy, checkpoints, publishes. It never names an algorithm; each one is a
// folder below this one. It imports the root package and the standard library;
// node imports it and supplies every dependency as a small interface.
//
// One step:
//
//	top up credits → gather B informative groups → Accumulate → Update
//	→ checkpoint → publish weights → commit the groups to replay → report
//
// The order of the last three makes a crash harmless. A published policy is
// always in a durable checkpoint, and a group leaves replay only after a
// checkpoint that has learned from it. Whatever was not committed is offered
// again to the resumed learner, in the same order.
//
// Every random choice is a function of (seed, step) or (seed, credit index), so
// a checkpoint holds no generator state.
package learner
