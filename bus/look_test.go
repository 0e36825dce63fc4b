package bus

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/forager-rl/forager"
)

// TestLook: whoever only looks sees how full everything is, and who waits.
func TestLook(t *testing.T) {
	b := open(t, func(c *Config) { c.MaxCredits, c.MaxRollouts, c.MaxObjects = 50, 1<<20, 8<<20 })
	publish(t, b, Credits, "1", "x")
	publish(t, b, Credits, "2", "x")
	take(t, b, Credits, 1)
	if err := b.PutObject(t.Context(), "weights", make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Run, cfg.URL = "laos", b.URL()
	r, err := OpenReader(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	credits, err := r.StreamInfo(t.Context(), Credits)
	if err != nil || credits.Messages != 2 || credits.Waiting != 1 || credits.Held != 1 || credits.MaxMessages != 50 || credits.MaxBytes != 0 {
		t.Errorf("credits: %+v, %v", credits, err)
	}
	rollouts, err := r.StreamInfo(t.Context(), Rollouts)
	if err != nil || rollouts.MaxBytes != 1<<20 || rollouts.MaxMessages != 0 {
		t.Errorf("rollouts: %+v, %v", rollouts, err)
	}
	objects, err := r.ObjectsInfo(t.Context())
	if err != nil || objects.Bytes < 1<<20 || objects.MaxBytes != 8<<20 {
		t.Errorf("objects: %+v, %v", objects, err)
	}
	if err := r.Connected(); err != nil {
		t.Error(err)
	}
	if ip := r.LocalIP(); !ip.IsLoopback() {
		t.Errorf("seen as %s", ip)
	}

	cfg.Run = "absent"
	absent, err := OpenReader(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer absent.Close()
	if _, err := absent.ObjectsInfo(t.Context()); !errors.Is(err, forager.ErrNotFound) {
		t.Errorf("objects of no run: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Connected(); err == nil {
		t.Error("a closed bus is connected")
	}
}
