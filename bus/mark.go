package bus

import (
	"cmp"

	"github.com/nats-io/nats.go"

	"github.com/forager-rl/forager"
)

// roleHeader holds, in every message and notice, the role that published it.
//
// A server checks where a client publishes to, but not where it wants the answer:
// a request whose reply subject is another stream's makes the server itself
// publish there. What comes about that way does not have the header, or has that
// of a role that may not publish there, and is not believed.
const roleHeader = "Forager-Role"

// message is a message of this process.
func (b *Bus) message(subject string, data []byte) *nats.Msg {
	msg := nats.NewMsg(subject)
	msg.Data = data
	msg.Header.Set(roleHeader, string(cmp.Or(b.role, anyRole)))
	return msg
}

// believes reports whether a message may come from the role that it names. On a
// bus without credentials everything may.
func (b *Bus) believes(subject string, header nats.Header) bool {
	if b.role == "" {
		return true
	}
	p, known := b.permissions[forager.Role(header.Get(roleHeader))]
	return known && p.mayPublish(subject)
}
