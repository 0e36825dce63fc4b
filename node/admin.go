package node

import (
	"context"
	"encoding/json"
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
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/security"
)

// startAdmin serves /metrics, /healthz and /status.
func (p *process) startAdmin(ctx context.Context) error {
	if p.cfg.Admin.Listen == "" {
		return nil
	}
	if err := security.CheckListen(p.cfg.Admin.Listen, p.credentials, p.cfg.Security.AllowPlain); err != nil {
		return fmt.Errorf("admin server: %w", err)
	}
	listener, err := net.Listen("tcp", p.cfg.Admin.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return forager.WithHint(fmt.Errorf("admin server: port of %s is %w", p.cfg.Admin.Listen, forager.ErrInUse), "pick another with --set admin.listen=127.0.0.1:0")
	}
	if err != nil {
		return fmt.Errorf("admin server: %w", err)
	}
	p.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
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
	p.observer.notice("metrics and status at %s/metrics and /status", webAddress(p.credentials, listener.Addr()))
	return nil
}

// status answers with the facts of the cluster and the depths of the streams.
func (p *process) status(w http.ResponseWriter, r *http.Request) {
	type stream struct {
		Messages uint64 `json:"messages"`
		Bytes    uint64 `json:"bytes"`
	}
	answer := struct {
		Run     string            `json:"run"`
		Process string            `json:"process"`
		Cluster any               `json:"cluster"`
		Streams map[string]stream `json:"streams"`
		Errors  []string          `json:"errors,omitempty"`
	}{Run: p.run, Process: p.name, Streams: map[string]stream{}}
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	state, err := p.cluster.State(ctx)
	if err != nil {
		answer.Errors = append(answer.Errors, err.Error())
	}
	answer.Cluster = state
	for _, s := range []bus.Stream{bus.Credits, bus.Rollouts, bus.Digests, bus.Annotations} {
		info, err := p.bus.StreamInfo(ctx, s)
		if err != nil {
			answer.Errors = append(answer.Errors, err.Error())
			continue
		}
		answer.Streams[string(s)] = stream{info.Messages, info.Bytes}
	}
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(answer); err != nil {
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
