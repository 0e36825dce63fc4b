// Package bus moves bytes: streams that keep messages until they are acked,
// request and reply, notices, and objects. It does not know what the bytes say;
// package batch does.
//
// Open decides whether the bus is a NATS server inside this process or one
// elsewhere, and nothing after Open can tell the difference. All names on the
// server carry the run id, so several runs share one server.
//
// What a caller may rely on: a nil error from Publish or PutObject means that
// the bytes survive kill -9 of any process, also of the one with the embedded
// server (its writes reach the kernel before the ack; Config.SyncInterval bounds
// what a power cut may take). Delivery is at least once: a message that is not
// acked within Config.AckWait comes again. Every call ends: with its context, or
// after Config.Timeout.
//
// Messages of streams and requests carry the W3C trace context of who sends them in
// their headers, if there is one.
//
// With credentials (Config.TLS, Seed, Users) the server lets in nobody else, and
// each role may use only the subjects that PermissionsOf lists. Without, whoever
// reaches it may do everything, so it stays on loopback.
//
// Package node and above may import this package. It imports the root package
// and owns NATS: nats.go and nats-server are imported nowhere else.
package bus
