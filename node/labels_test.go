package node

import (
	"errors"
	"log/slog"
	"reflect"
	"testing"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/rundir"
)

// TestReadLabels reads the labels of a run while its bus is up, and again after
// its process has ended.
func TestReadLabels(t *testing.T) {
	dir, err := rundir.Create(t.TempDir(), "laos")
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	read := func(cfg Config) ([]forager.Annotation, error) {
		var got []forager.Annotation
		err := ReadLabels(t.Context(), cfg, LabelsOptions{Dir: dir.Path(), Logger: logger}, func(a forager.Annotation) error {
			got = append(got, a)
			return nil
		})
		return got, err
	}
	cfg := DefaultConfig()
	if _, err := read(cfg); !errors.Is(err, forager.ErrNotFound) {
		t.Errorf("a run without a bus: %v", err)
	}

	unlock, err := dir.Lock(string(forager.RoleNATS))
	if err != nil {
		t.Fatal(err)
	}
	carrier := cfg.Bus
	carrier.Run, carrier.StoreDir, carrier.Provision = dir.ID(), storeFolder(dir), true
	b, err := bus.Open(t.Context(), carrier, logger)
	if err != nil {
		t.Fatal(err)
	}
	value := 1.0
	want := []forager.Annotation{
		{RolloutID: "laos-1", Source: "helpful", Value: &value, Key: "k", Time: time.UnixMicro(5).UTC()},
		{RolloutID: "laos-2", Source: "helpful", Key: "l", Time: time.UnixMicro(6).UTC()},
	}
	if err := (labelStream{bus: b}).Publish(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"running", "ended"} {
		if state == "ended" {
			if err := errors.Join(b.Close(), unlock()); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := read(cfg); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", state, got, err)
		}
	}
	if unlock, err := dir.Lock(string(forager.RoleNATS)); err != nil {
		t.Errorf("reading keeps the run from being resumed: %v", err)
	} else if err := unlock(); err != nil {
		t.Error(err)
	}
}
