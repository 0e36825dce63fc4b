// Package node builds one Forager process out of roles and runs it.
//
// A role is one of the services of the system: cluster, replay, rewardsrv,
// retriever, learner, actor. Roles talk over the bus alone, also when they share
// a process, so that "forager train" and one process per role are two wirings of
// the same parts. This package holds the adapters between the small interfaces
// that roles declare and the bus, the cluster, the run directory and the native
// engine; it is the only place that knows them all.
//
// Only cmd/forager imports it.
package node
