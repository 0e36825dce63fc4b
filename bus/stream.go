package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/forager-rl/forager"
)

// Publish adds a message to a stream and waits until the server holds it.
//
// A message with a non-empty id may be published again safely: Credits and
// Rollouts drop it while a message with that id is in the stream (waiting or
// being worked on), the others drop it within two minutes. Both count as
// success. A full stream gives forager.ErrFull, except Digests, which drops its
// oldest. After any other error the message may or may not be there. The message
// carries the trace context of ctx, if there is one.
func (b *Bus) Publish(ctx context.Context, s Stream, id string, data []byte) error {
	if err := b.publish(ctx, s, id, data); err != nil {
		return fmt.Errorf("publish to %s: %w", s, err)
	}
	return nil
}

func (b *Bus) publish(ctx context.Context, s Stream, id string, data []byte) error {
	if err := checkID(id); err != nil {
		return err
	}
	var opts []jetstream.PublishOpt
	switch {
	case !s.queuedOnce():
		if id != "" {
			opts = append(opts, jetstream.WithMsgID(id))
		}
		id = "message"
	case id == "":
		id = rand.Text()
	}
	bounded, cancel := b.bounded(ctx)
	defer cancel()
	msg := b.message(b.names.subject(s, id), data)
	inject(ctx, msg.Header)
	_, err := b.js.PublishMsg(bounded, msg, opts...)
	var api *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &api) && api.ErrorCode == codeStoreFailed:
		switch {
		case s.queuedOnce() && strings.Contains(api.Description, "per subject"):
			return nil // the id is in the stream
		case strings.Contains(api.Description, "maximum"):
			return forager.ErrFull
		}
		return err
	case errors.Is(err, nats.ErrMaxPayload):
		return forager.WithHint(fmt.Errorf("message of %d bytes, the server takes %d", len(data), b.conn.MaxPayload()), "raise max_payload")
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return fmt.Errorf("no ack within %v: %w", b.cfg.Timeout, err)
	}
	return err
}

// Message is one delivery of a message. Until Ack it is this holder's for
// Config.AckWait, counted from the delivery or the last Extend.
type Message struct {
	Data        []byte
	Sequence    uint64        // place in its stream
	Redelivered int           // how often it was delivered before
	Trace       forager.Trace // of its publisher; zero when it was not traced

	bus *Bus
	msg jetstream.Msg
}

// Ack removes the message from the stream and returns when the server has done
// so. An ack that comes too late, after a redelivery, still removes it.
func (m *Message) Ack() error {
	ctx, cancel := m.bus.bounded(context.Background())
	defer cancel()
	if err := m.msg.DoubleAck(ctx); err != nil {
		return fmt.Errorf("ack message %d: %w", m.Sequence, err)
	}
	return nil
}

// Extend says that the work goes on: the ack wait starts anew.
func (m *Message) Extend() error {
	if err := m.msg.InProgress(); err != nil {
		return fmt.Errorf("extend message %d: %w", m.Sequence, err)
	}
	return nil
}

// Nak gives the message back, to be delivered again after a delay.
func (m *Message) Nak(delay time.Duration) error {
	if err := m.msg.NakWithDelay(delay); err != nil {
		return fmt.Errorf("give back message %d: %w", m.Sequence, err)
	}
	return nil
}

// Fetch takes up to limit messages off a stream, sharing them with everybody
// else who fetches from it. It returns as soon as there is at least one, and
// none and no error when there was none within wait. Annotations are not
// fetched but read with Replay and Follow.
func (b *Bus) Fetch(ctx context.Context, s Stream, limit int, wait time.Duration) ([]*Message, error) {
	consumer, ok := b.consumers[s]
	if !ok {
		return nil, fmt.Errorf("fetch from %s: the stream is read with Replay and Follow", s)
	}
	if limit < 1 || wait <= 0 {
		return nil, fmt.Errorf("fetch from %s: limit %d, wait %v", s, limit, wait)
	}
	// What is there now, or else the first that comes: a single request would
	// wait for all of limit.
	batch, err := consumer.FetchNoWait(limit)
	if err != nil {
		return nil, fmt.Errorf("fetch from %s: %w", s, err)
	}
	messages, err := b.collect(ctx, batch)
	if err == nil && len(messages) == 0 {
		if batch, err = consumer.Fetch(1, jetstream.FetchMaxWait(wait)); err == nil {
			messages, err = b.collect(ctx, batch)
		}
	}
	if err != nil && len(messages) == 0 {
		return nil, fmt.Errorf("fetch from %s: %w", s, err)
	}
	return messages, nil
}

// collect gathers the answers to one request. The request ends by itself, at
// the latest a second after its wait. The server cannot be told that ctx ended
// it: until then whatever still comes goes back at once, to somebody else.
func (b *Bus) collect(ctx context.Context, batch jetstream.MessageBatch) ([]*Message, error) {
	var messages []*Message
	for {
		select {
		case msg, ok := <-batch.Messages():
			if !ok {
				return messages, batch.Error()
			}
			meta, err := msg.Metadata()
			if err != nil {
				return messages, err
			}
			if !b.believes(msg.Subject(), msg.Headers()) {
				b.log.Warn("bus: a message that nobody may publish was dropped", "subject", msg.Subject(), "role", msg.Headers().Get(roleHeader))
				if err := msg.Term(); err != nil {
					return messages, err
				}
				continue
			}
			messages = append(messages, &Message{
				Data: msg.Data(), Sequence: meta.Sequence.Stream, Redelivered: int(meta.NumDelivered) - 1, Trace: traceOf(msg.Headers()), bus: b, msg: msg,
			})
		case <-ctx.Done():
			go func() { // ends with the request
				for msg := range batch.Messages() {
					_ = msg.Nak() // else it comes again after AckWait
				}
			}()
			return messages, ctx.Err()
		}
	}
}

// StreamInfo is the state of a stream.
type StreamInfo struct {
	Messages     uint64 // in the stream, those being worked on included
	Bytes        uint64
	LastSequence uint64 // of the newest message ever, 0 when there was none
	Waiting      uint64 // not yet delivered to anybody; 0 for Annotations
	Held         int    // delivered and not acked; 0 for Annotations
	MaxMessages  int64  // limit of Messages; 0: none
	MaxBytes     int64  // limit of Bytes; 0: none
}

// StreamInfo asks the server for the state of a stream.
func (b *Bus) StreamInfo(ctx context.Context, s Stream) (StreamInfo, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	stream, err := b.js.Stream(ctx, b.names.stream(s))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		err = fmt.Errorf("run %s: %w", b.cfg.Run, forager.ErrNotFound)
	}
	if err != nil {
		return StreamInfo{}, fmt.Errorf("state of %s: %w", s, err)
	}
	info := streamInfo(stream)
	if s.fetched() { // looked up, not taken from b.consumers: a reader has none
		consumer, err := stream.Consumer(ctx, workers)
		if err != nil {
			return StreamInfo{}, fmt.Errorf("state of %s: %w", s, err)
		}
		c := consumer.CachedInfo()
		info.Waiting, info.Held = c.NumPending, c.NumAckPending
	}
	return info, nil
}

func streamInfo(stream jetstream.Stream) StreamInfo {
	info := stream.CachedInfo()
	return StreamInfo{
		Messages: info.State.Msgs, Bytes: info.State.Bytes, LastSequence: info.State.LastSeq,
		MaxMessages: max(0, info.Config.MaxMsgs), MaxBytes: max(0, info.Config.MaxBytes),
	}
}

// PurgeStream removes the messages of a stream up to a sequence number, those
// being worked on included; who holds one may still ack it.
func (b *Bus) PurgeStream(ctx context.Context, s Stream, through uint64) error {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	stream, err := b.js.Stream(ctx, b.names.stream(s))
	if err == nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSequence(through+1))
	}
	if err != nil {
		return fmt.Errorf("purge %s: %w", s, err)
	}
	return nil
}
