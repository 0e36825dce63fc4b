// Package batch says how rollouts, turn digests and annotations look as bytes:
// Arrow schemas by name and version, encode, decode, and files of them.
//
// A batch is an Arrow IPC stream. Its schema metadata names the schema
// ("forager.schema") and its version ("forager.version"). Columns are only ever
// added: a reader ignores columns that it does not know and takes absent
// optional columns as null, so an old learner reads a new actor and the other
// way round. A version with a higher major number is a break and is refused
// with forager.ErrSchema; bytes that do not hold what they promise are refused
// with forager.ErrCorrupt. Decoding arbitrary bytes never panics and never
// allocates more than a small multiple of their size.
//
// The schemas are the tables in rollout.go, digest.go and annotation.go: one
// line per column says its name, its type and where it lives in the vocabulary.
//
// Layer 2 and above may import this package. It imports the root package and is
// the owner of Apache Arrow; no Arrow type appears in its API, so that no
// reference count ever crosses a package boundary.
package batch
