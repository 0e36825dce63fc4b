package bus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/forager-rl/forager"
)

// OpenReader is Open for someone who only looks: it creates nothing on the
// server, and only Replay, Follow, StreamInfo, ObjectsInfo, Announced and Request
// work. They answer forager.ErrNotFound for what is not there. Without cfg.URL it serves
// what is in cfg.StoreDir, which CopyStream may have put there.
func OpenReader(ctx context.Context, cfg Config, log *slog.Logger) (*Bus, error) {
	b, err := newBus(cfg, log)
	if err != nil {
		return nil, err
	}
	if err := b.join(ctx); err != nil {
		_ = b.Close() // the first error is the one to tell
		return nil, fmt.Errorf("open bus for reading: %w", err)
	}
	return b, nil
}

// CopyStream copies the files of one stream of a run from the store of an
// embedded server to a new folder, so that reading them changes nothing of the
// run. No server may have the store open meanwhile. It answers
// forager.ErrNotFound when the store does not have the stream.
func CopyStream(store, run string, s Stream, to string) error {
	// Where nats-server keeps the streams of its one account.
	inner := filepath.Join(server.JetStreamStoreDir, server.DEFAULT_GLOBAL_ACCOUNT, "streams", names{run}.stream(s))
	if _, err := os.Stat(filepath.Join(store, inner)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("stream %s of run %s in %s: %w", s, run, store, forager.ErrNotFound)
	}
	if err := os.CopyFS(filepath.Join(to, inner), os.DirFS(filepath.Join(store, inner))); err != nil {
		return fmt.Errorf("copy stream %s of run %s: %w", s, run, err)
	}
	return nil
}

// addressFile holds the URL of the embedded server beside its store while it
// runs.
const addressFile = "address"

// Address is where the embedded server of a store listens. What a killed process
// left may be out of date: ask only when the store is known to be in use. It
// answers forager.ErrNotFound when no server was started there.
func Address(store string) (string, error) {
	f, err := os.Open(filepath.Join(store, addressFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("address of the bus in %s: %w", store, forager.ErrNotFound)
	}
	if err != nil {
		return "", fmt.Errorf("address of the bus: %w", err)
	}
	defer f.Close() // only read from
	text, err := io.ReadAll(io.LimitReader(f, 1<<10))
	if err != nil {
		return "", fmt.Errorf("address of the bus: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
