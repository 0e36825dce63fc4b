package bus

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/forager-rl/forager"
)

// startServer runs a NATS server with JetStream in this process, on a loopback
// port. It leaves signals and standard output alone.
func startServer(cfg *Config, log *slog.Logger) (*server.Server, error) {
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
