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
	return epochCheckpoints(tb, d, keep, 0)
}

func epochCheckpoints(tb testing.TB, d *Dir, keep int, epoch uint64) *Checkpoints {
	tb.Helper()
	c, err := d.Checkpoints(keep, epoch)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func save(tb testing.TB, c *Checkpoints, step uint64, text string) Checkpoint {
	tb.Helper()
	saved, err := c.Save(step, writer(text), always)
	if err != nil {
		tb.Fatal(err)
	}
	return saved
}

// always is the answer of a lease that is not lost.
func always() error { return nil }

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
	if list, err := c.List(); err != nil || !slices.Equal(list, []string{"step-00000020", "step-00000030"}) {
		t.Fatalf("got %v, %v", list, err)
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
	if _, err := d.ReadCheckpoints().Save(31, writer("x"), always); err == nil {
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
			_, err := c.Save(2, write, always)
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
			_, _ = c.Save(2, func(string) error { panic("bug") }, always)
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
		"renamed step": func(dir string) error { return os.Rename(dir, filepath.Join(filepath.Dir(dir), place{step: 3}.name())) },
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
			if list, err := c.List(); err != nil || !slices.Equal(list, []string{"step-00000001", "step-00000002"}) {
				t.Errorf("left: %v, %v", list, err)
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
	if err := os.Rename(c.path(place{step: 2}), filepath.Join(c.dir, ".replaced-step-00000002")); err != nil {
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
	if _, err := d.Checkpoints(0, 0); err == nil {
		t.Error("keep 0 was allowed")
	}
}

// TestEpochsAreApart: a learner that was replaced and comes back neither
// overwrites nor hides what its successor saves, and layouts without epochs are
// read.
func TestEpochsAreApart(t *testing.T) {
	d := create(t)
	save(t, checkpoints(t, d, 3), 7, "from before epochs")
	first := epochCheckpoints(t, d, 3, 1)
	mustLatest(t, first, 7, "from before epochs", 0)
	save(t, first, 8, "base")
	second := epochCheckpoints(t, d, 3, 2)
	mustLatest(t, second, 8, "base", 0)

	late := save(t, first, 9, "late") // before the successor has saved anything
	mustLatest(t, second, 9, "late", 0)
	if got, err := second.Latest("step-00000007", "step-00000008-e1"); err != nil || got.Step != 8 || got.Epoch != 1 {
		t.Fatalf("%+v, %v: what is on record comes first", got, err)
	}
	save(t, second, 9, "new")
	mustLatest(t, second, 9, "new", 0)
	save(t, first, 9, "late again")
	save(t, first, 10, "later still")
	got := mustLatest(t, second, 9, "new", 0)
	if got.Epoch != 2 || got.Dir == late.Dir {
		t.Fatalf("got %+v", got)
	}
	if epoch, err := d.ReadCheckpoints().Epoch(); err != nil || epoch != 2 {
		t.Fatalf("the newest epoch is %d, %v", epoch, err)
	}
	save(t, second, 10, "newer")
	if list, err := second.List(); err != nil || !slices.Equal(list, []string{"step-00000008-e1", "step-00000009-e2", "step-00000010-e2"}) {
		t.Fatalf("left: %v, %v", list, err)
	}
	// What is on record and damaged is passed over for what is not.
	if err := os.Remove(filepath.Join(second.dir, "step-00000010-e2", "weights")); err != nil {
		t.Fatal(err)
	}
	if got, err := second.Latest("step-00000010-e2", "step-00000004-e1"); err != nil || got.Step != 9 || len(got.Skipped) != 1 {
		t.Fatalf("got %+v, %v", got, err)
	}
}

// TestLostLeaseSavesNothing takes the lease away at each question: the newest
// checkpoint and its mark are those from before, or the new one is whole.
func TestLostLeaseSavesNothing(t *testing.T) {
	for at := range 4 {
		d := create(t)
		c := checkpoints(t, d, 1)
		save(t, c, 1, "old")
		questions := 0
		_, err := c.Save(2, writer("new"), func() error {
			if questions++; questions > at {
				return forager.ErrFenced
			}
			return nil
		})
		if lost := at < 3; errors.Is(err, forager.ErrFenced) != lost {
			t.Fatalf("lost at question %d: got %v", at, err)
		}
		latest, text := uint64(1), "old"
		if at > 0 {
			latest, text = 2, "new"
		}
		mustLatest(t, c, latest, text, 0)
		want := []string{"latest", "step-00000001"}
		switch at {
		case 1, 2:
			want = append(want, "step-00000002")
		case 3:
			want[1] = "step-00000002"
		}
		if got := names(t, c.dir); !slices.Equal(got, want) {
			t.Errorf("lost at question %d: left %v, want %v", at, got, want)
		}
	}
}

// BenchmarkSave is a checkpoint of 12 MiB: weights and two moments of a policy of
// about 1 M parameters in float32. Latest is what a resume costs.
func BenchmarkSave(b *testing.B) {
	data := make([]byte, 12<<20)
	write := func(dir string) error { return os.WriteFile(filepath.Join(dir, "weights"), data, 0o600) }
	c, err := create(b).Checkpoints(2, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("save", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for step := uint64(0); b.Loop(); step++ {
			if _, err := c.Save(step, write, always); err != nil {
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
