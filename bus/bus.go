package bus

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/forager-rl/forager"
)

// Bus is a connection to the server of a run. Its methods may be called by
// several goroutines at once.
type Bus struct {
	cfg   Config
	names names
	log   *slog.Logger

	server *server.Server // nil when the server is elsewhere
	conn   *nats.Conn
	js     jetstream.JetStream

	role        forager.Role // "" without credentials
	seed        []byte
	permissions map[forager.Role]Permissions // of the run
	denied      atomic.Pointer[error]        // what the server refused last
	returned    chan struct{}                // the connection came back; holds one
	stop        context.CancelFunc           // ends what runs in the background
	background  sync.WaitGroup

	consumers map[Stream]jetstream.Consumer    // written by Open only
	objects   map[string]jetstream.ObjectStore // by bucket; written by Open only
	claims    jetstream.Stream
	id        string // of this bus among all holders of claims
	closing   sync.Once
}

// Open starts the embedded server or joins the one at cfg.URL. With cfg.Provision
// it creates what the run needs there; what exists stays. Without, it waits until
// another process has done so. It waits at most cfg.ConnectTimeout for the server to
// answer, and as long for the rest. A taken port gives forager.ErrInUse; a server
// that refuses this process is not asked twice.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (*Bus, error) {
	b, err := newBus(cfg, log)
	if err != nil {
		return nil, err
	}
	if err := b.open(ctx); err != nil {
		_ = b.Close() // the first error is the one to tell
		return nil, fmt.Errorf("open bus: %w", err)
	}
	return b, nil
}

func newBus(cfg Config, log *slog.Logger) (*Bus, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	b := &Bus{
		cfg: cfg, names: names{cfg.Run}, log: log, role: cfg.Role, seed: cfg.Seed, permissions: map[forager.Role]Permissions{},
		returned: make(chan struct{}, 1), stop: func() {},
		consumers: map[Stream]jetstream.Consumer{}, objects: map[string]jetstream.ObjectStore{}, id: rand.Text(),
	}
	for role := range b.names.abilities() {
		b.permissions[role] = PermissionsOf(cfg.Run, role)
	}
	return b, nil
}

func (b *Bus) open(ctx context.Context) error {
	if err := b.join(ctx); err != nil {
		return err
	}
	if b.cfg.Provision {
		if err := b.provision(ctx); err != nil {
			return err
		}
		background, stop := context.WithCancel(context.WithoutCancel(ctx))
		b.stop = stop // called by Close
		b.background.Go(func() { b.reprovision(background) })
	}
	if err := b.bind(ctx); err != nil || b.server == nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.cfg.StoreDir, addressFile), []byte(b.URL()+"\n"), 0o644)
}

// join starts the embedded server, if it is to be that, and connects.
func (b *Bus) join(ctx context.Context) (err error) {
	if b.cfg.URL == "" {
		if err = b.startServer(); err != nil {
			return err
		}
	}
	if b.conn, err = b.connect(ctx); err != nil {
		return err
	}
	b.js, err = jetstream.New(b.conn, jetstream.WithDefaultTimeout(b.cfg.Timeout))
	return err
}

// URL is where other processes can join the bus.
func (b *Bus) URL() string {
	if b.server != nil {
		return reachable(b.server.ClientURL())
	}
	return b.cfg.URL
}

// Close sends what is under way, leaves the server, and ends it when it is
// embedded. Later calls do nothing.
func (b *Bus) Close() error {
	var err error
	b.closing.Do(func() {
		b.stop()
		b.background.Wait()
		if b.conn != nil {
			if b.conn.IsConnected() {
				err = b.conn.FlushTimeout(b.cfg.Timeout)
			}
			b.conn.Close()
		}
		if b.server != nil {
			b.server.Shutdown()
			b.server.WaitForShutdown()
		}
	})
	if err != nil {
		return fmt.Errorf("close bus: %w", err)
	}
	return nil
}

// bounded gives a context that ends with ctx or after the configured time.
func (b *Bus) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, b.cfg.Timeout)
}

// transfer is bounded for something that may be large: a second more for every
// MiB.
func (b *Bus) transfer(ctx context.Context, bytes int) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, b.cfg.Timeout+time.Duration(bytes>>20)*time.Second)
}
