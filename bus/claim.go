package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ClaimAge is how long a claim stays on the server unless it is released.
const ClaimAge = 10 * time.Minute

// claimBytes bounds the claims of a run, about 200 bytes each; beyond it the
// oldest go first.
const claimBytes = 128 << 20

// Claim takes a key for this bus, if nobody holds it (over 0), or if the claim
// on it is still the one with revision over: of several who try, on any machine,
// one wins. It gives the revision of the claim that stands now, this or another
// holder's; 0 without winning means that the claim went away meanwhile. A claim
// of this bus is won again, so that a call whose answer was lost may be repeated,
// and over with its own revision renews it.
//
// The server forgets a claim after ClaimAge. Whether a holder is dead before
// that is for the others to judge, by how long they have seen one revision:
// clocks of different machines are never compared.
func (b *Bus) Claim(ctx context.Context, key string, over uint64) (revision uint64, won bool, err error) {
	if err := checkName("claim", key); err != nil {
		return 0, false, err
	}
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	subject := b.names.subject(claims, key)
	ack, err := b.js.PublishMsg(ctx, b.message(subject, []byte(b.id)), jetstream.WithExpectLastSequencePerSubject(over))
	if err == nil {
		return ack.Sequence, true, nil
	}
	var api *jetstream.APIError
	if !errors.As(err, &api) || api.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequence && api.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequenceConstant {
		return 0, false, fmt.Errorf("claim %s: %w", key, err)
	}
	standing, err := b.claims.GetLastMsgForSubject(ctx, subject)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return 0, false, nil
	case err != nil:
		return 0, false, fmt.Errorf("claim %s: %w", key, err)
	}
	return standing.Sequence, string(standing.Data) == b.id, nil
}

// Release gives up a claim of this bus with the revision that Claim gave. One
// that somebody else has taken over meanwhile stays theirs.
func (b *Bus) Release(ctx context.Context, key string, revision uint64) error {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	// A message that is not there any more counts as success: every claim is a
	// message of its own, so that one which was taken over is not hit.
	if err := b.claims.DeleteMsg(ctx, revision); err != nil && !errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
		return fmt.Errorf("release claim %s: %w", key, err)
	}
	return nil
}
