package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

	consumers map[Stream]jetstream.Consumer // written by Open only
	objects   jetstream.ObjectStore
	claims    jetstream.Stream
	id        string // of this bus among all holders of claims
	closing   sync.Once
}

// Open starts the embedded server or joins the one at cfg.URL, and creates what
// the run needs there; what exists stays. It waits at most cfg.ConnectTimeout
// for the server to answer. A taken port gives forager.ErrInUse.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (*Bus, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	b := &Bus{cfg: cfg, names: names{cfg.Run}, log: log, consumers: map[Stream]jetstream.Consumer{}, id: rand.Text()}
	if err := b.open(ctx); err != nil {
		_ = b.Close() // the first error is the one to tell
		return nil, fmt.Errorf("open bus: %w", err)
	}
	return b, nil
}

func (b *Bus) open(ctx context.Context) error {
	if err := b.join(ctx); err != nil {
		return err
	}
	if err := b.create(ctx); err != nil || b.server == nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.cfg.StoreDir, addressFile), []byte(b.URL()+"\n"), 0o644)
}

// join starts the embedded server, if it is to be that, and connects.
func (b *Bus) join(ctx context.Context) (err error) {
	if b.cfg.URL == "" {
		if b.server, err = startServer(&b.cfg, b.log); err != nil {
			return err
		}
	}
	if b.conn, err = b.connect(ctx); err != nil {
		return err
	}
	// The server drops what exceeds 128 MB unprocessed for one stream: an object's
	// chunks of 128 KiB go out 32 MB at a time.
	const chunks = 256
	b.js, err = jetstream.New(b.conn, jetstream.WithDefaultTimeout(b.cfg.Timeout), jetstream.WithPublishAsyncMaxPending(chunks))
	return err
}

// connect tries until the server answers or the time is over.
func (b *Bus) connect(ctx context.Context) (*nats.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.ConnectTimeout)
	defer cancel()
	for {
		conn, err := nats.Connect(b.cfg.URL, b.options()...)
		if err == nil {
			return conn, nil
		}
		if errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) {
			return nil, forager.WithHint(fmt.Errorf("%s refuses us: %w", redacted(b.cfg.URL), err), "check the credentials file and the URL")
		}
		select {
		case <-ctx.Done():
			return nil, forager.WithHint(
				fmt.Errorf("%s does not answer within %v: %w", redacted(b.cfg.URL), b.cfg.ConnectTimeout, err),
				"check --nats or start nats-server -js")
		case <-time.After(min(200*time.Millisecond, b.cfg.ConnectTimeout/4)):
		}
	}
}

func (b *Bus) options() []nats.Option {
	opts := []nats.Option{
		nats.Name("forager " + b.cfg.Run),
		nats.Timeout(b.cfg.ConnectTimeout),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(500 * time.Millisecond),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				b.log.Warn("bus: connection lost, trying again", "error", err)
			}
		}),
		nats.ReconnectHandler(func(c *nats.Conn) { b.log.Info("bus: connected again", "server", c.ConnectedUrlRedacted()) }),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			b.log.Warn("bus: connection error", "subject", subject, "error", err)
		}),
	}
	if b.server != nil {
		opts = append(opts, nats.InProcessServer(b.server))
	}
	if b.cfg.CredentialsFile != "" {
		opts = append(opts, nats.UserCredentials(b.cfg.CredentialsFile))
	}
	return opts
}

// create makes the streams, their consumers and the object store. It is the
// same for the first process of a run and for all that follow.
func (b *Bus) create(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	for i, s := range allStreams() {
		stream, err := b.js.CreateOrUpdateStream(ctx, b.cfg.streams()[i])
		if err != nil {
			return createError(string(s), err)
		}
		if s == claims {
			b.claims = stream
		}
		if !s.fetched() {
			continue
		}
		if b.server != nil {
			// The server was not running until now, so whoever held messages is
			// gone or has lost them. A new consumer hands them out at once; the
			// old one would wait for Config.AckWait first.
			if err := stream.DeleteConsumer(ctx, workers); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
				return createError(string(s), err)
			}
		}
		if b.consumers[s], err = stream.CreateOrUpdateConsumer(ctx, b.cfg.consumer()); err != nil {
			return createError(string(s), err)
		}
	}
	var err error
	b.objects, err = b.js.CreateOrUpdateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: b.names.bucket(), MaxBytes: b.cfg.MaxObjects})
	if err != nil {
		return createError("objects", err)
	}
	return nil
}

// Codes of nats-server that nats.go has no constant for.
const (
	codeNoResources = 10023
	codeNoMemory    = 10028
	codeNoStorage   = 10047
	codeStoreFailed = 10077
)

func createError(what string, err error) error {
	err = fmt.Errorf("create %s: %w", what, err)
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount),
		errors.Is(err, nats.ErrNoResponders):
		return forager.WithHint(err, "the server has no JetStream: start nats-server with -js")
	case errors.As(err, &api) && (api.ErrorCode == codeNoResources || api.ErrorCode == codeNoMemory || api.ErrorCode == codeNoStorage):
		return forager.WithHint(err, "free disk space or lower the bus limits max_rollouts, max_annotations and max_objects")
	}
	return err
}

// URL is where other processes can join the bus.
func (b *Bus) URL() string {
	if b.server != nil {
		return b.server.ClientURL()
	}
	return b.cfg.URL
}

// Close sends what is under way, leaves the server, and ends it when it is
// embedded. Later calls do nothing.
func (b *Bus) Close() error {
	var err error
	b.closing.Do(func() {
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

// redacted is a URL list without passwords.
func redacted(urls string) string {
	parts := strings.Split(urls, ",")
	for i, part := range parts {
		if u, err := url.Parse(strings.TrimSpace(part)); err == nil {
			parts[i] = u.Redacted()
		}
	}
	return strings.Join(parts, ",")
}
