package bus

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/forager-rl/forager"
)

const (
	// MemberAge is how long an announcement is kept unless it is made again.
	MemberAge = 15 * time.Second
	// MaxAnnouncement bounds an announcement, in bytes.
	MaxAnnouncement = 16 << 10
	// maxMembers bounds how many are kept; beyond it the oldest go first. The server
	// answers no more at once.
	maxMembers = 1024
)

// Announcement is the last word of a process.
type Announcement struct {
	Name string
	Role forager.Role // whose credentials it has; "" on a bus without any
	Data []byte
}

// Announce says something about this process to whoever asks in the next MemberAge,
// in place of what it said before under that name.
func (b *Bus) Announce(ctx context.Context, name string, data []byte) error {
	if len(data) == 0 || len(data) > MaxAnnouncement {
		return fmt.Errorf("announce %s: %d bytes, want 1 to %d", name, len(data), MaxAnnouncement)
	}
	return b.announce(ctx, name, data)
}

// Withdraw takes back what this process announced under a name.
func (b *Bus) Withdraw(ctx context.Context, name string) error { return b.announce(ctx, name, nil) }

func (b *Bus) announce(ctx context.Context, name string, data []byte) error {
	if name == "" || len(name) > 128 {
		return fmt.Errorf("announce %q: want a name of 1 to 128 bytes", name)
	}
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	subject := b.names.member(b.role, base64.RawURLEncoding.EncodeToString([]byte(name)))
	if _, err := b.js.PublishMsg(ctx, b.message(subject, data)); err != nil {
		return fmt.Errorf("announce %s: %w", name, err)
	}
	return nil
}

// Announced is the last word of each name, not older than MemberAge.
func (b *Bus) Announced(ctx context.Context) (map[string][]byte, error) {
	list, err := b.Announcements(ctx)
	if err != nil {
		return nil, err
	}
	words := make(map[string][]byte, len(list))
	for _, a := range list {
		words[a.Name] = a.Data
	}
	return words, nil
}

// Announcements is Announced with the role of each process, oldest word first. The
// role is what the server vouches for; what the data say is the process's own claim.
func (b *Bus) Announcements(ctx context.Context) ([]Announcement, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	list, err := b.lastWords(ctx)
	if err != nil {
		return nil, fmt.Errorf("look up announcements: %w", err)
	}
	return list, nil
}

// lastWords asks for the last message of every subject at once: the server sends
// them one after another, then one without a body that has a status.
func (b *Bus) lastWords(ctx context.Context) ([]Announcement, error) {
	request, err := json.Marshal(map[string]any{"multi_last": []string{b.names.member("*", "*")}, "batch": maxMembers})
	if err != nil {
		return nil, err
	}
	reply := b.conn.NewInbox()
	sub, err := b.conn.SubscribeSync(reply)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }() // or the connection is closed
	if err := b.conn.PublishRequest(api+"DIRECT.GET."+b.names.stream(members), reply, request); err != nil {
		return nil, err
	}
	var list []Announcement
	for range maxMembers + 1 {
		msg, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, err
		}
		switch status := msg.Header.Get("Status"); status {
		case "":
			if a, ok := b.announcement(msg); ok {
				list = append(list, a)
			}
		case "204", "404": // the end; there are none
			return list, nil
		default:
			return nil, fmt.Errorf("the server answers %s %s", status, msg.Header.Get("Description"))
		}
	}
	return nil, errors.New("the server sends more than was asked for")
}

// announcement reads a stored message. One that was withdrawn has no body.
func (b *Bus) announcement(msg *nats.Msg) (Announcement, bool) {
	subject := msg.Header.Get("Nats-Subject")
	rest, ours := strings.CutPrefix(subject, b.names.subject(members, ""))
	role, token, whole := strings.Cut(rest, ".")
	name, err := base64.RawURLEncoding.DecodeString(token)
	if !ours || !whole || err != nil || len(msg.Data) == 0 || len(msg.Data) > MaxAnnouncement || !b.believes(subject, msg.Header) {
		return Announcement{}, false
	}
	a := Announcement{Name: string(name), Role: forager.Role(role), Data: msg.Data}
	if a.Role == anyRole {
		a.Role = ""
	}
	return a, true
}
