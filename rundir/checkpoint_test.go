package rundir

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/forager-rl/forager"
)

// writer puts two files, one in a folder, whose bytes tell the text.
func writer(text string) func(string) error {
	return func(dir string) error {
		return errors.Join(
			os.WriteFile(filepath.Join(dir, "weights"), []byte(text), 0o600),
			os.MkdirAll(filepath.Join(dir, "state"), 0o755),
			os.WriteFile(filepath.Join(dir, "state", "rng"), []byte("rng of "+text), 0o600))
	}
}

func checkpoints(tb testing.TB, d *Dir, keep int) *Checkpoints {
	tb.Helper()
	c, err := d.Checkpoints(keep)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func save(tb testing.TB, c *Checkpoints, step uint64, text string) Checkpoint {
	tb.Helper()
	saved, err := c.Save(step, writer(text))
	if err != nil {
		tb.Fatal(err)
	}
	return saved
}

// mustLatest checks step and text of the newest complete checkpoint and the
// number of damaged ones before it.
func mustLatest(tb testing.TB, c *Checkpoints, step uint64, text string, skipped int) Checkpoint {
	tb.Helper()
	got, err := c.Latest()
	if err != nil || got.Step != step || len(got.Skipped) != skipped {
		tb.Fatalf("latest is %+v, %v; want step %d after %d damaged", got, err, step, skipped)
	}
	if data, err := os.ReadFile(filepath.Join(got.Dir, "weights")); err != nil || string(data) != text {
		tb.Fatalf("latest holds %q, %v; want %q", data, err, text)
	}
	return got
}

func TestSaveAndLatest(t *testing.T) {
	d := create(t)
	c := checkpoints(t, d, 2)
	if _, err := c.Latest(); !errors.Is(err, forager.ErrNotFound) {
		t.Fatalf("got %v", err)
	}
	for step := range uint64(4) {
		saved := save(t, c, step*10, "w")
		if got := mustLatest(t, c, step*10, "w", 0); got.Digest != saved.Digest || got.Dir != saved.Dir || got.Bytes != saved.Bytes || saved.Bytes != 9 {
			t.Fatalf("saved %+v, found %+v", saved, got)
		}
	}
	if steps, err := c.List(); err != nil || !slices.Equal(steps, []uint64{20, 30}) {
		t.Fatalf("got %v, %v", steps, err)
	}
	dir := filepath.Join(d.Path(), "checkpoints")
	if got := names(t, dir); !slices.Equal(got, []string{"latest", "step-00000020", "step-00000030"}) {
		t.Errorf("left: %v", got)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "latest")); err != nil || string(data) != "step-00000030\n" {
		t.Errorf("marker %q, %v", data, err)
	}
	save(t, c, 30, "again")
	mustLatest(t, c, 30, "again", 0)
	if _, err := d.ReadCheckpoints().Save(31, writer("x")); err == nil {
		t.Error("a reader saved")
	}
	mustLatest(t, d.ReadCheckpoints(), 30, "again", 0)
}

// TestFailedSaveKeepsOld: whatever goes wrong in a save, the old checkpoint
// stays and nothing else does.
func TestFailedSaveKeepsOld(t *testing.T) {
	for name, write := range map[string]func(string) error{
		"full disk": func(dir string) error {
			return errors.Join(writer("half")(dir), &os.PathError{Op: "write", Path: dir, Err: syscall.ENOSPC})
		},
		"nothing written": func(string) error { return nil },
		"symbolic link":   func(dir string) error { return os.Symlink("/etc/hostname", filepath.Join(dir, "link")) },
		"seal forged":     func(dir string) error { return os.WriteFile(filepath.Join(dir, sealFile), nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			d := create(t)
			c := checkpoints(t, d, 1)
			save(t, c, 1, "old")
			before := names(t, c.dir)
			_, err := c.Save(2, write)
			if err == nil || !strings.Contains(err.Error(), "step 1 is kept") {
				t.Fatalf("got %v", err)
			}
			if name == "full disk" && !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("got %v", err)
			}
			if after := names(t, c.dir); !slices.Equal(before, after) {
				t.Errorf("left: %v", after)
			}
			mustLatest(t, c, 1, "old", 0)
		})
	}
	t.Run("panic", func(t *testing.T) {
		c := checkpoints(t, create(t), 1)
		save(t, c, 1, "old")
		func() {
			defer func() { _ = recover() }()
			_, _ = c.Save(2, func(string) error { panic("bug") })
		}()
		mustLatest(t, c, 1, "old", 0)
		if got := names(t, c.dir); len(got) != 2 {
			t.Errorf("left: %v", got)
		}
	})
}

// TestDamagedCheckpointIsSkipped damages the newest checkpoint in each way and
// resumes from the one before.
func TestDamagedCheckpointIsSkipped(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"bit flipped":    func(dir string) error { return os.WriteFile(filepath.Join(dir, "weights"), []byte("nex"), 0o600) },
		"truncated":      func(dir string) error { return os.Truncate(filepath.Join(dir, "state", "rng"), 3) },
		"file missing":   func(dir string) error { return os.Remove(filepath.Join(dir, "weights")) },
		"seal missing":   func(dir string) error { return os.Remove(filepath.Join(dir, sealFile)) },
		"seal truncated": func(dir string) error { return os.Truncate(filepath.Join(dir, sealFile), 30) },
		"seal empty":     func(dir string) error { return os.WriteFile(filepath.Join(dir, sealFile), []byte(`{}`), 0o600) },
		"seal escapes": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, sealFile), []byte(`{"schema":1,"step":2,"files":[{"name":"../latest","bytes":1,"sha256":""}]}`), 0o600)
		},
		"renamed step": func(dir string) error { return os.Rename(dir, filepath.Join(filepath.Dir(dir), stepName(3))) },
	} {
		t.Run(name, func(t *testing.T) {
			c := checkpoints(t, create(t), 3)
			save(t, c, 1, "old")
			if err := damage(save(t, c, 2, "new").Dir); err != nil {
				t.Fatal(err)
			}
			got := mustLatest(t, c, 1, "old", 1)
			if !errors.Is(got.Skipped[0], forager.ErrCorrupt) {
				t.Errorf("got %v", got.Skipped[0])
			}
			// Going on from step 1 replaces the damaged future.
			save(t, c, 2, "recomputed")
			mustLatest(t, c, 2, "recomputed", 0)
			if steps, err := c.List(); err != nil || !slices.Equal(steps, []uint64{1, 2}) {
				t.Errorf("left: %v, %v", steps, err)
			}
		})
	}
	t.Run("all of them", func(t *testing.T) {
		c := checkpoints(t, create(t), 3)
		if err := os.Remove(filepath.Join(save(t, c, 1, "old").Dir, "weights")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Latest(); !errors.Is(err, forager.ErrCorrupt) {
			t.Fatalf("got %v", err)
		}
	})
}

// TestOpenCleansUp: what a killed save left behind goes, what it had moved aside
// comes back.
func TestOpenCleansUp(t *testing.T) {
	d := create(t)
	c := checkpoints(t, d, 2)
	save(t, c, 1, "one")
	save(t, c, 2, "two")
	for _, name := range []string{".tmp-step-00000003-123", ".tmp-gone-step-00000000"} {
		if err := os.MkdirAll(filepath.Join(c.dir, name, "state"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Killed between the two renames that replace step 2 ...
	if err := os.Rename(c.path(2), filepath.Join(c.dir, ".replaced-step-00000002")); err != nil {
		t.Fatal(err)
	}
	// ... and after both for step 1.
	if err := os.Mkdir(filepath.Join(c.dir, ".replaced-step-00000001"), 0o755); err != nil {
		t.Fatal(err)
	}
	mustLatest(t, d.ReadCheckpoints(), 1, "one", 0) // a reader changes nothing
	c = checkpoints(t, d, 2)
	mustLatest(t, c, 2, "two", 0)
	if got := names(t, c.dir); !slices.Equal(got, []string{"latest", "step-00000001", "step-00000002"}) {
		t.Errorf("left: %v", got)
	}
	if _, err := d.Checkpoints(0); err == nil {
		t.Error("keep 0 was allowed")
	}
}

// BenchmarkSave is a checkpoint of 12 MiB: weights and two moments of a policy of
// about 1 M parameters in float32. Latest is what a resume costs.
func BenchmarkSave(b *testing.B) {
	data := make([]byte, 12<<20)
	write := func(dir string) error { return os.WriteFile(filepath.Join(dir, "weights"), data, 0o600) }
	c, err := create(b).Checkpoints(2)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("save", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for step := uint64(0); b.Loop(); step++ {
			if _, err := c.Save(step, write); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("latest", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			if _, err := c.Latest(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
