package bus

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/forager-rl/forager"
)

// ObjectsInfo is the state of the store of weights: Bytes and MaxBytes, the rest is 0.
func (b *Bus) ObjectsInfo(ctx context.Context) (StreamInfo, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	stream, err := b.js.Stream(ctx, objects(b.names.bucket("")))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		err = fmt.Errorf("run %s: %w", b.cfg.Run, forager.ErrNotFound)
	}
	if err != nil {
		return StreamInfo{}, fmt.Errorf("state of the object store: %w", err)
	}
	info := streamInfo(stream)
	return StreamInfo{Bytes: info.Bytes, MaxBytes: info.MaxBytes}, nil
}

// Connected gives nil while the connection lives, else why it does not.
func (b *Bus) Connected() error {
	switch status := b.conn.Status(); {
	case b.conn.IsConnected():
		return nil
	case status == nats.RECONNECTING && b.conn.LastError() != nil:
		return fmt.Errorf("%s: connection lost, trying again: %w", redacted(b.URL()), b.conn.LastError())
	default:
		return fmt.Errorf("%s: connection is %s", redacted(b.URL()), status)
	}
}

// LocalIP is the address of this process as the server sees it, where others on
// the same network reach it too. It is loopback beside an embedded server.
func (b *Bus) LocalIP() net.IP {
	if ip, err := b.conn.GetClientIP(); err == nil && ip != nil {
		return ip
	}
	return net.IPv4(127, 0, 0, 1)
}
