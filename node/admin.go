package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/security"
)

// startAdmin serves /metrics, /healthz, /readyz and /status.
func (p *process) startAdmin(ctx context.Context) error {
	if p.cfg.Admin.Listen == "" {
		return nil
	}
	listener, err := p.listen("admin.listen", p.cfg.Admin.Listen)
	if err != nil {
		return fmt.Errorf("admin server: %w", err)
	}
	p.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := p.exportBuild(); err != nil {
		return fmt.Errorf("admin server: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", p.readyz)
	mux.HandleFunc("GET /status", p.status)
	server := &http.Server{
		Handler: security.Bearer(p.credentials.Token(), mux), TLSConfig: p.credentials.Server(),
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		ErrorLog: slog.NewLogLogger(p.logger.Handler(), slog.LevelDebug),
	}
	serve := server.Serve
	if server.TLSConfig != nil {
		serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
	}
	p.group.start(ctx, "admin server", func(ctx context.Context) error {
		failed := make(chan error, 1)
		go func() { failed <- serve(listener) }()
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
			err := server.Close()
			<-failed
			return err
		}
	})
	p.observer.notice("metrics and status at %s/metrics and /status", webAddress(p.credentials, reachable(listener.Addr(), p.bus.LocalIP())))
	return nil
}

// listen opens the port that a setting names, if this process may listen there.
func (p *process) listen(setting, address string) (net.Listener, error) {
	if err := security.CheckListen(address, p.credentials, p.cfg.Security.AllowPlain); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, forager.WithHint(fmt.Errorf("port of %s is %w", address, forager.ErrInUse), fmt.Sprintf("pick another with --set %s=127.0.0.1:0", setting))
	}
	return listener, err
}

// readyz answers whether the roles of this process can be used: they are up and
// the bus is there.
func (p *process) readyz(w http.ResponseWriter, _ *http.Request) {
	err := p.condition.ready()
	if err == nil && p.bus.Connected() != nil {
		err = errors.New("the connection to the bus is lost") // no more: anybody may ask
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ready\n"))
}

// status answers with what "forager status --json" shows.
func (p *process) status(w http.ResponseWriter, r *http.Request) {
	status := survey{&p.cfg, p.run, p.bus, p.clock, p.logger}.take(r.Context())
	w.Header().Set("Content-Type", "application/json")
	if err := status.WriteJSON(w); err != nil {
		p.logger.Debug("status answer was cut off", "error", err)
	}
}

// sleep waits and reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
