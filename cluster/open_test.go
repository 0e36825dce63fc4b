package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/forager-rl/forager"
)

// crashDirEnv makes the test binary a process that publishes until it is killed.
const crashDirEnv = "FORAGER_TEST_CLUSTER_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDirEnv); dir != "" {
		if err := publishUntilKilled(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func open(tb testing.TB, dir string) *Cluster {
	tb.Helper()
	c, err := Open(DefaultConfig(), dir, slog.New(slog.DiscardHandler), time.Now)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
	})
	return c
}

// publishUntilKilled prints each version after it was acknowledged.
func publishUntilKilled(dir string) error {
	cfg := DefaultConfig()
	cfg.SnapshotEntries = 20 // so that snapshots are part of the test
	c, err := Open(cfg, dir, slog.New(slog.DiscardHandler), time.Now)
	if err != nil {
		return err
	}
	ctx, client := context.Background(), NewClient(local{c})
	if err := client.SetRun(ctx, Run{ID: "r"}); err != nil {
		return err
	}
	lease, current, err := client.AcquireLease(ctx, "learner", time.Minute)
	if err != nil {
		return err
	}
	next := forager.Version(0)
	if current != nil {
		next = current.Version + 1
	}
	for v := next; ; v++ {
		if err := client.PublishManifest(ctx, manifest(v, lease.Epoch, fmt.Sprint(v))); err != nil {
			return err
		}
		if err := client.AddCheckpoint(ctx, lease.Epoch, Checkpoint{Step: uint64(v), Version: v, Path: "p", Digest: "d"}); err != nil {
			return err
		}
		if _, err := fmt.Println(v); err != nil {
			return err
		}
		if v%16 == 15 {
			_ = c.raft.Snapshot().Error() // "nothing new to snapshot" is fine
		}
	}
}

// TestKill9 kills a publishing process at several points: whatever it was
// acknowledged is there afterwards, and the epoch goes up at each start.
func TestKill9(t *testing.T) {
	dir := t.TempDir()
	newest := -1
	for round, acks := range []int{1, 7, 40} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashDirEnv+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for i := 0; lines.Scan(); i++ {
			v, err := strconv.Atoi(lines.Text())
			if err != nil || v <= newest {
				t.Fatalf("version %q after %d, %v", lines.Text(), newest, err)
			}
			newest = v
			if i+1 == acks {
				if err := cmd.Process.Kill(); err != nil { // SIGKILL
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // "signal: killed"

		func() {
			c, err := Open(DefaultConfig(), dir, slog.New(slog.DiscardHandler), time.Now)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}()
			s, err := c.State(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if s.Manifest == nil || int(s.Manifest.Version) < newest || s.Lease.Epoch != uint64(round+1) {
				t.Fatalf("round %d: acknowledged v%d, found %+v under %+v", round, newest, s.Manifest, s.Lease)
			}
			if n := len(s.Checkpoints); n == 0 || int(s.Checkpoints[n-1].Step) < newest {
				t.Fatalf("checkpoint %d was acknowledged and is lost: %+v", newest, s.Checkpoints)
			}
		}()
	}
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	var want string
	for i := range 3 {
		c, err := Open(DefaultConfig(), dir, slog.New(slog.DiscardHandler), time.Now)
		if err != nil {
			t.Fatal(err)
		}
		client := NewClient(local{c})
		s, err := client.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Digest(); err != nil || i > 0 && got != want {
			t.Fatalf("start %d: state %s, want %s, %v", i, got, want, err)
		}
		lease, _, err := client.AcquireLease(t.Context(), "a", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if err := client.AddCheckpoint(t.Context(), lease.Epoch, Checkpoint{Step: uint64(i), Version: forager.Version(i), Path: "p", Digest: "d"}); err != nil {
			t.Fatal(err)
		}
		if err := client.ReleaseLease(t.Context(), lease); err != nil {
			t.Fatal(err)
		}
		if i == 1 { // the third start reads a snapshot
			if err := c.raft.Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
		}
		if s, err = client.State(t.Context()); err != nil {
			t.Fatal(err)
		}
		if want, err = s.Digest(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.State(t.Context()); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("a closed node answered: %v", err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	t.Run("directory in use", func(t *testing.T) {
		dir := t.TempDir()
		open(t, dir)
		_, err := Open(DefaultConfig(), dir, log, time.Now)
		if !errors.Is(err, forager.ErrInUse) || !strings.Contains(err.Error(), "; another process") {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("another node's directory", func(t *testing.T) {
		dir := t.TempDir()
		c := open(t, dir)
		if err := c.WaitLeader(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		cfg := DefaultConfig()
		cfg.NodeID = "node-2"
		if _, err := Open(cfg, dir, log, time.Now); err == nil || !strings.Contains(err.Error(), "cluster.node_id") {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("not a log file", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "raft.db"), make([]byte, 64<<10), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(DefaultConfig(), dir, log, time.Now); !errors.Is(err, forager.ErrCorrupt) {
			t.Fatalf("got %v", err)
		}
	})
}

// BenchmarkApply is the time from a client's call to its answer, one fsync to
// disk included.
func BenchmarkApply(b *testing.B) {
	c := open(b, b.TempDir())
	client := NewClient(local{c})
	lease, _, err := client.AcquireLease(b.Context(), "a", time.Minute)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := client.RenewLease(b.Context(), lease); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRead is the time of a read that holds everything acknowledged.
func BenchmarkRead(b *testing.B) {
	c := open(b, b.TempDir())
	client := NewClient(local{c})
	for b.Loop() {
		if _, err := client.State(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkElect is the time from Open on an existing directory to the first
// answered read.
func BenchmarkElect(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		c, err := Open(DefaultConfig(), dir, slog.New(slog.DiscardHandler), time.Now)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.State(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
