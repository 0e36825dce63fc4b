// Package rewardsrv is the asynchronous annotator: it reads turn digests,
// asks a judge about each distinct search step once, and publishes labels that
// replay joins when it samples.
//
// Nobody waits for it. Newest steps come first; whatever exceeds a bound is dropped
// and counted, and a label that is late or never comes is null, not 0. When it
// is dead or its judge is, learning goes on without these rewards.
//
// It imports the root package, package reward, the OpenAI client (which only
// this package may import) and the Prometheus client. Streams and tasks come in through the
// small interfaces in server.go; node adapts the bus to them.
package rewardsrv
