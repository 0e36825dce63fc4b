package bus

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/forager-rl/forager"
)

// startServer runs a NATS server with JetStream in this process. With credentials
// it lets in nobody but their holders, and this process by a key that it makes now.
func (b *Bus) startServer() (err error) {
	users := b.cfg.Users
	if len(users) > 0 {
		key, err := nkeys.CreateUser()
		if err != nil {
			return fmt.Errorf("nkey of the embedded server: %w", err)
		}
		own, err := key.PublicKey()
		if err != nil {
			return fmt.Errorf("nkey of the embedded server: %w", err)
		}
		if b.seed, err = key.Seed(); err != nil {
			return fmt.Errorf("nkey of the embedded server: %w", err)
		}
		b.role = forager.RoleNATS
		users = maps.Clone(users)
		users[b.role] = append(slices.Clone(users[b.role]), own)
	}
	b.server, err = runServer(&b.cfg, nkeyUsers(b.cfg.Run, users), b.log)
	return err
}

// runServer gives a server that is ready. It leaves signals and standard output
// alone. Users stay in the account that a server without any has, so that the
// streams of a run are still there when it gets credentials; the system account has
// no user.
func runServer(cfg *Config, users []*server.NkeyUser, log *slog.Logger) (*server.Server, error) {
	host, portText, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen address %q: %w", cfg.Listen, err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, fmt.Errorf("listen address %q: %w", cfg.Listen, err)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	} else if err := tryListen(cfg.Listen); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.StoreDir, 0o755); err != nil {
		return nil, fmt.Errorf("folder of the embedded server: %w", err)
	}
	s, err := server.NewServer(&server.Options{
		ServerName: "forager-" + cfg.Run, Host: host, Port: port, NoSigs: true,
		JetStream: true, StoreDir: cfg.StoreDir, SyncInterval: cfg.SyncInterval, // store limits: the server takes them from the free disk space
		MaxPayload: int32(cfg.MaxPayload), DisableJetStreamBanner: true,
		TLS: cfg.TLS != nil, TLSConfig: cfg.TLS, TLSTimeout: handshakeTimeout, AuthTimeout: handshakeTimeout + 2, Nkeys: users,
	})
	if err != nil {
		return nil, fmt.Errorf("embedded server: %w", err)
	}
	log = log.With("component", "nats-server")
	serverLog := &serverLogger{log: log}
	s.SetLogger(serverLog, false, false)
	s.Start()
	ready := s.ReadyForConnections(cfg.ConnectTimeout)
	if err := serverLog.failure(); err != nil || !ready || !s.JetStreamEnabled() {
		s.Shutdown()
		s.WaitForShutdown()
		if err == nil {
			err = fmt.Errorf("not ready within %v", cfg.ConnectTimeout)
		}
		return nil, forager.WithHint(fmt.Errorf("embedded server: %w", err), "look at the folder "+cfg.StoreDir)
	}
	return s, nil
}

// handshakeTimeout is how long a client may take for TLS, in seconds: the server's
// own 2 s are too few for machines whose cores are all busy.
const handshakeTimeout = 10

// reachable is a server's URL as another process of this machine may use it.
func reachable(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(u.Hostname()); ip != nil && ip.IsUnspecified() {
		u.Host = net.JoinHostPort("127.0.0.1", u.Port())
	}
	return u.String()
}

// tryListen finds out before the server starts whether its port is free: the
// server itself only logs that.
func tryListen(addr string) error {
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return forager.WithHint(fmt.Errorf("port %s: %w", addr, forager.ErrInUse), "pick another port or 0 for a free one")
	}
	if err != nil {
		return err
	}
	return l.Close()
}

// serverLogger carries the server's log to slog, one level down: what the server
// finds notable about its start is of no interest to the reader of a run.
type serverLogger struct {
	log   *slog.Logger
	mu    sync.Mutex
	fatal error
}

func (l *serverLogger) Noticef(format string, v ...any) {
	l.log.Debug("nats-server", "line", fmt.Sprintf(format, v...))
}
func (l *serverLogger) Warnf(format string, v ...any) {
	l.log.Warn("nats-server", "line", fmt.Sprintf(format, v...))
}
func (l *serverLogger) Errorf(format string, v ...any) {
	l.log.Error("nats-server", "line", fmt.Sprintf(format, v...))
}
func (l *serverLogger) Debugf(string, ...any) {}
func (l *serverLogger) Tracef(string, ...any) {}

// Fatalf keeps the reason: unlike nats-server's own logger it does not end the
// process.
func (l *serverLogger) Fatalf(format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fatal == nil {
		l.fatal = fmt.Errorf(format, v...)
	}
}

func (l *serverLogger) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fatal
}
