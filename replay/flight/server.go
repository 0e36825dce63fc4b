package flight

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/apache/arrow/go/v15/arrow/flight"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/forager-rl/forager"
)

// Config sets how rollouts are served over Arrow Flight.
type Config struct {
	// Listen is the address to listen on, such as 127.0.0.1:8815; port 0 picks a free
	// one, empty serves nothing. Off loopback it needs credentials, see security.dir.
	Listen string `mapstructure:"listen"`
	// MaxReads is how many flights are read at once; more are refused. At least 1.
	MaxReads int `mapstructure:"max_reads"`
	// ShutdownTimeout bounds how long reads may go on at the end.
	ShutdownTimeout time.Duration `mapstructure:"shutdown_timeout"`
	// TLS makes the server speak TLS; nil: plain text.
	TLS *tls.Config `mapstructure:"-"`
	// Authorize tells from the header "authorization", or "", who may ask; nil lets in
	// all.
	Authorize func(header string) bool `mapstructure:"-"`
}

// DefaultConfig serves nothing until there is an address.
func DefaultConfig() Config { return Config{MaxReads: 8, ShutdownTimeout: 5 * time.Second} }

// Validate reports every value that is out of range.
func (c Config) Validate() error {
	var errs []error
	if c.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Listen); err != nil {
			errs = append(errs, forager.WithHint(fmt.Errorf("listen address %q: %w", c.Listen, err), "write it as host:port"))
		}
	}
	if c.MaxReads < 1 {
		errs = append(errs, fmt.Errorf("max_reads is %d, want at least 1", c.MaxReads))
	}
	if c.ShutdownTimeout <= 0 {
		errs = append(errs, fmt.Errorf("shutdown_timeout is %s, want more than 0", c.ShutdownTimeout))
	}
	return errors.Join(errs...)
}

// The bounds of a connection: a client that vanished is noticed after a minute, and
// what clients send is a few lines.
const (
	pingAfter      = 40 * time.Second
	pingTimeout    = 20 * time.Second
	maxRequest     = 64 << 10 // bytes
	maxCalls       = 64       // of one connection at once
	handshakeLimit = 10 * time.Second
)

// Server serves sources over Arrow Flight.
type Server struct {
	config Config
	logger *slog.Logger
	grpc   *grpc.Server
}

// NewServer makes a server for sources by name, of which there is at least one, and
// registers its metrics, unless registerer is nil.
func NewServer(config Config, sources map[string]Source, logger *slog.Logger, registerer prometheus.Registerer) (*Server, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if len(sources) == 0 || logger == nil {
		return nil, errors.New("flight: sources and logger are required")
	}
	sent := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "forager", Subsystem: "flight", Name: "rollouts_total", Help: "Rollouts sent to Arrow Flight clients, by flight.",
	}, []string{"flight"})
	if registerer != nil {
		if err := registerer.Register(sent); err != nil {
			return nil, fmt.Errorf("flight metrics: %w", err)
		}
	}
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxRequest), grpc.MaxConcurrentStreams(maxCalls), grpc.ConnectionTimeout(handshakeLimit),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingTimeout}),
	}
	if config.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(config.TLS)))
	}
	if config.Authorize != nil {
		gate := gate{config.Authorize}
		options = append(options, grpc.UnaryInterceptor(gate.unary), grpc.StreamInterceptor(gate.stream))
	}
	s := &Server{config: config, logger: logger, grpc: grpc.NewServer(options...)}
	flight.RegisterFlightServiceServer(s.grpc, &service{sources: sources, reads: make(chan struct{}, config.MaxReads), sent: sent, logger: logger})
	return s, nil
}

// gate refuses calls without a valid header.
type gate struct{ authorize func(header string) bool }

func (g gate) check(ctx context.Context) error {
	header := ""
	if all := metadata.ValueFromIncomingContext(ctx, "authorization"); len(all) > 0 {
		header = all[0]
	}
	if g.authorize(header) {
		return nil
	}
	return status.Error(codes.Unauthenticated, `the call carries no valid token: send the header "authorization: Bearer TOKEN"`)
}

func (g gate) unary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := g.check(ctx); err != nil {
		return nil, err
	}
	return next(ctx, request)
}

func (g gate) stream(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := g.check(stream.Context()); err != nil {
		return err
	}
	return next(server, stream)
}

// Run serves what comes in at a listener until ctx is cancelled and reads have ended,
// or ShutdownTimeout later, and returns nil then. A server runs once.
func (s *Server) Run(ctx context.Context, listener net.Listener) error {
	s.logger.Info("rollouts are served over Arrow Flight", "address", listener.Addr().String(), "tls", s.config.TLS != nil)
	failed := make(chan error, 1)
	go func() { failed <- s.grpc.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("flight: %w", err)
	case <-ctx.Done():
	}
	// GracefulStop waits for reads, which Stop then ends.
	cut := time.AfterFunc(s.config.ShutdownTimeout, func() {
		s.logger.Warn("flight cut off running reads", "waited", s.config.ShutdownTimeout)
		s.grpc.Stop()
	})
	defer cut.Stop()
	s.grpc.GracefulStop()
	<-failed
	return nil
}
