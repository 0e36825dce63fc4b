package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/forager-rl/forager"
)

// MemberAge is how long an announcement stays unless it is made again.
const MemberAge = 15 * time.Second

// memberBytes bounds the announcements of a run, some hundred bytes each.
const memberBytes = 64 << 20

// Announce says something about this process under a name, in place of what was
// said there before. It is forgotten after MemberAge.
func (b *Bus) Announce(ctx context.Context, name string, data []byte) error {
	if err := checkName("member", name); err != nil {
		return err
	}
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	if _, err := b.js.Publish(ctx, b.names.subject(members, name), data); err != nil {
		return fmt.Errorf("announce %s: %w", name, err)
	}
	return nil
}

// Withdraw takes back what was announced under a name. Nothing to take back is
// no error.
func (b *Bus) Withdraw(ctx context.Context, name string) error {
	if err := checkName("member", name); err != nil {
		return err
	}
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	stream, err := b.js.Stream(ctx, b.names.stream(members))
	if err == nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSubject(b.names.subject(members, name)))
	}
	if err != nil {
		return fmt.Errorf("withdraw %s: %w", name, err)
	}
	return nil
}

// Announced gives the last word of each name that is not older than MemberAge.
func (b *Bus) Announced(ctx context.Context) (map[string][]byte, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	stream, err := b.js.Stream(ctx, b.names.stream(members))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		err = fmt.Errorf("run %s: %w", b.cfg.Run, forager.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("announcements: %w", err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(b.names.subject(members, "*")))
	if err != nil {
		return nil, fmt.Errorf("announcements: %w", err)
	}
	words := make(map[string][]byte, len(info.State.Subjects))
	for subject := range info.State.Subjects {
		message, err := stream.GetLastMsgForSubject(ctx, subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // forgotten or withdrawn meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("announcements: %w", err)
		}
		words[strings.TrimPrefix(subject, b.names.subject(members, ""))] = message.Data
	}
	return words, nil
}
