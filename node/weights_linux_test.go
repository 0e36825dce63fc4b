package node

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestFolderOnAFullDisk mounts a disk that is too small.
func TestFolderOnAFullDisk(t *testing.T) {
	mount := t.TempDir()
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("NOT CHECKED: weights on a really full disk (mounting a 64 KiB tmpfs: %v); run the tests as root to check it", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(mount, 0); err != nil {
			t.Error(err)
		}
	})
	s := &shop{}
	f := folder(t, mount, s, time.Minute)
	filler := filepath.Join(mount, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	mustGet(t, f, manifest(1, 1))
	if !f.told.Load() {
		t.Error("nobody was told")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	mustGet(t, f, manifest(1, 1))
	mustGet(t, f, manifest(1, 1))
	if got := s.sold.Load(); got != 2 || f.told.Load() {
		t.Errorf("%d fetches, want 2; the folder is of no use: %v", got, f.told.Load())
	}
}
