// Package flight serves rollouts to Apache Arrow Flight clients, such as pyarrow:
// those that wait in replay, and those that were learned from. It only reads:
// nothing that a client does keeps a group from the learner.
//
// A flight is a Source under a name. Its descriptor is the path of that name, or a
// Command for a part of it. Both lead to one endpoint on the same server, whose
// ticket DoGet answers with the rows of batch's schema "rollout", group after group.
// DoPut, DoExchange and actions are not implemented.
//
// node imports this package. It imports the root package and batch, and is the owner
// of gRPC and, with batch, of Apache Arrow.
package flight
