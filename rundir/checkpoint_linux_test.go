package rundir

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// TestFullDisk fills a real, small file system while a checkpoint is written.
func TestFullDisk(t *testing.T) {
	mount := t.TempDir()
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("NOT CHECKED: a checkpoint on a really full disk (mounting a 256 KiB tmpfs: %v); run the tests as root to check it", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(mount, 0); err != nil {
			t.Error(err)
		}
	})
	d, err := Create(mount, "r")
	if err != nil {
		t.Fatal(err)
	}
	c := checkpoints(t, d, 1)
	m, err := d.OpenMetrics(0, always)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := m.Append(1, map[string]float64{"reward": 1}); err != nil {
		t.Fatal(err)
	}
	save(t, c, 1, "old")
	before := names(t, c.dir)
	big := func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "weights"), bytes.Repeat([]byte("x"), 1<<20), 0o600)
	}
	if _, err := c.Save(2, big, always); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v", err)
	}
	mustLatest(t, c, 1, "old", 0)
	if after := names(t, c.dir); !slices.Equal(before, after) {
		t.Errorf("left: %v", after)
	}

	// Metrics on the same full disk: whole lines or none.
	filler := filepath.Join(mount, "filler")
	if err := os.WriteFile(filler, bytes.Repeat([]byte("x"), 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v", err)
	}
	written := uint64(1)
	for step := uint64(2); step < 1000; step++ {
		if err := m.Append(step, map[string]float64{"reward": 1, "loss": 0.123456789}); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			break
		}
		written = step
	}
	if written == 999 {
		t.Fatal("the disk never was full")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := m.Append(written+1, map[string]float64{"reward": 2}); err != nil {
		t.Fatalf("after making room: %v", err)
	}
	rows, err := ReadMetrics(d.MetricsPath())
	if err != nil || len(rows) != int(written)+1 {
		t.Fatalf("%d rows, %v; want %d", len(rows), err, written+1)
	}
	save(t, c, 2, "new")
	mustLatest(t, c, 2, "new", 0)
}
