package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/forager-rl/forager"
)

// ErrNoService means that nobody serves what was asked for, at this moment.
var ErrNoService = errors.New("nobody answers")

// Headers of requests and replies.
const (
	timeoutHeader = "Forager-Timeout" // of a request: milliseconds that the caller still waits
	errorHeader   = "Forager-Error"   // of a reply whose body is the text of an error: its kind
)

// maxErrorText bounds the text of an error on the wire, in bytes.
const maxErrorText = 4 << 10

// maxWaiting is how many requests of a service wait in a process for a free
// handler; those beyond it get no reply.
const maxWaiting = 1024

// wireErrors are the sentinels that survive the wire, by kind. Any other error
// is of kind "other".
var wireErrors = map[string]error{
	"full":         forager.ErrFull,
	"not-found":    forager.ErrNotFound,
	"fenced":       forager.ErrFenced,
	"stale":        forager.ErrStale,
	"schema":       forager.ErrSchema,
	"corrupt":      forager.ErrCorrupt,
	"in-use":       forager.ErrInUse,
	"architecture": forager.ErrArchitecture,
}

func kindOf(err error) string {
	for kind, sentinel := range wireErrors {
		if errors.Is(err, sentinel) {
			return kind
		}
	}
	return "other"
}

// remoteError is an error of the other side: its text, and its sentinel here.
type remoteError struct {
	text     string
	sentinel error // nil for kinds that this side does not know
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.sentinel }

// Request asks a service and waits for the reply, for at most Config.Timeout. It
// returns ErrNoService when nobody serves it, and the error of the handler with
// its text and its sentinel. The handler sees the trace context of ctx.
func (b *Bus) Request(ctx context.Context, service string, data []byte) ([]byte, error) {
	if err := checkName("service", service); err != nil {
		return nil, err
	}
	bounded, cancel := b.bounded(ctx)
	defer cancel()
	deadline, _ := bounded.Deadline()
	request := nats.NewMsg(b.names.service(service))
	request.Data = data
	inject(ctx, request.Header)
	request.Header.Set(timeoutHeader, strconv.FormatInt(max(1, time.Until(deadline).Milliseconds()), 10))
	reply, err := b.conn.RequestMsgWithContext(bounded, request)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, forager.WithHint(fmt.Errorf("service %s: %w", service, ErrNoService), "start the process that serves it")
	case errors.Is(err, nats.ErrMaxPayload):
		return nil, forager.WithHint(
			fmt.Errorf("service %s: request of %d bytes, the server takes %d", service, len(data), b.conn.MaxPayload()), "raise max_payload")
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return nil, fmt.Errorf("service %s: no reply within %v: %w", service, b.cfg.Timeout, err)
	case err != nil:
		return nil, fmt.Errorf("service %s: %w", service, err)
	}
	if kind := reply.Header.Get(errorHeader); kind != "" {
		return nil, fmt.Errorf("service %s: %w", service, &remoteError{string(reply.Data[:min(len(reply.Data), maxErrorText)]), wireErrors[kind]})
	}
	return reply.Data, nil
}

// Serve answers requests for a service until ctx ends, then finishes those that
// it works on and returns nil. Processes that serve the same service share its
// requests. Up to Config.Requests handlers run at once; the context of each ends
// when its caller stops waiting.
func (b *Bus) Serve(ctx context.Context, service string, handler func(context.Context, []byte) ([]byte, error)) error {
	if err := checkName("service", service); err != nil {
		return err
	}
	requests := make(chan *nats.Msg, maxWaiting)
	sub, err := b.conn.ChanQueueSubscribe(b.names.service(service), servers, requests)
	if err != nil {
		return fmt.Errorf("serve %s: %w", service, err)
	}
	if err := b.conn.FlushTimeout(b.cfg.Timeout); err != nil {
		return errors.Join(fmt.Errorf("serve %s: %w", service, err), ignoreClosed(sub.Unsubscribe()))
	}
	var handlers sync.WaitGroup
	for range b.cfg.Requests {
		handlers.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case request := <-requests:
					b.answer(ctx, service, request, handler)
				}
			}
		})
	}
	handlers.Wait()
	if err := ignoreClosed(sub.Unsubscribe()); err != nil {
		return fmt.Errorf("serve %s: %w", service, err)
	}
	return nil
}

func (b *Bus) answer(ctx context.Context, service string, request *nats.Msg, handler func(context.Context, []byte) ([]byte, error)) {
	if !b.mayAnswer(request.Reply) {
		b.log.Warn("bus: a request that wants its answer elsewhere than in an inbox was dropped", "service", service, "reply", request.Reply)
		return
	}
	wait := b.cfg.Timeout
	if ms, err := strconv.ParseInt(request.Header.Get(timeoutHeader), 10, 64); err == nil && ms > 0 {
		wait = time.Duration(min(ms, int64(time.Hour/time.Millisecond))) * time.Millisecond
	}
	// A request that is taken is finished even when the server of it is told to
	// stop: only its caller's wait ends it.
	ctx, cancel := context.WithTimeout(extract(context.WithoutCancel(ctx), request.Header), wait)
	defer cancel()
	reply := nats.NewMsg(request.Reply)
	data, err := handler(ctx, request.Data)
	if ctx.Err() != nil {
		return // the caller has stopped waiting
	}
	if err == nil && int64(len(data)) > b.conn.MaxPayload() {
		err = fmt.Errorf("reply of %d bytes, the server takes %d; raise max_payload or ask for less", len(data), b.conn.MaxPayload())
	}
	if err != nil {
		reply.Header.Set(errorHeader, kindOf(err))
		data = []byte(err.Error())
		data = data[:min(len(data), maxErrorText)]
	}
	reply.Data = data
	if err := b.conn.PublishMsg(reply); err != nil {
		b.log.Warn("bus: a reply was not sent", "service", service, "error", err)
	}
}

// mayAnswer reports whether a reply subject is the inbox of a role. Anywhere else a
// caller could have us publish what it may not publish itself.
func (b *Bus) mayAnswer(reply string) bool {
	if b.role == "" {
		return reply != ""
	}
	rest, ok := strings.CutPrefix(reply, inboxPrefix)
	role, _, whole := strings.Cut(rest, ".")
	_, known := b.permissions[forager.Role(role)]
	return ok && whole && known
}

// Notify tells everybody who watches a topic at this moment. Nobody may.
func (b *Bus) Notify(ctx context.Context, topic string, data []byte) error {
	if err := checkName("topic", topic); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.conn.PublishMsg(b.message(b.names.notice(topic), data)); err != nil {
		return fmt.Errorf("notify %s: %w", topic, err)
	}
	return nil
}

// Watch calls fn with every notice on a topic, one after the other, until ctx
// ends. Notices that come while the connection is lost are missed: what they
// tell must also be found elsewhere.
func (b *Bus) Watch(ctx context.Context, topic string, fn func([]byte)) error {
	if err := checkName("topic", topic); err != nil {
		return err
	}
	sub, err := b.conn.SubscribeSync(b.names.notice(topic))
	if err != nil {
		return fmt.Errorf("watch %s: %w", topic, err)
	}
	for {
		msg, err := sub.NextMsgWithContext(ctx)
		switch {
		case ctx.Err() != nil:
			return ignoreClosed(sub.Unsubscribe())
		case errors.Is(err, nats.ErrSlowConsumer): // fn is slow: some were dropped, the next ones come
			continue
		case err != nil:
			return fmt.Errorf("watch %s: %w", topic, err)
		}
		if b.believes(msg.Subject, msg.Header) {
			fn(msg.Data)
		}
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrBadSubscription) {
		return nil
	}
	return err
}
