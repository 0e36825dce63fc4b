package rundir

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/forager-rl/forager"
)

// lockDirEnv makes the test binary a process that holds a lock until it is killed.
const lockDirEnv = "FORAGER_TEST_RUNDIR_LOCK"

func TestMain(m *testing.M) {
	if dir := os.Getenv(lockDirEnv); dir != "" {
		d, err := Open(dir)
		if err == nil {
			_, err = d.Lock("learner")
		}
		fmt.Println(err)
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // until killed, or the parent ends
		return
	}
	os.Exit(m.Run())
}

func create(tb testing.TB) *Dir {
	tb.Helper()
	d, err := Create(filepath.Join(tb.TempDir(), "runs"), "r")
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func TestNewID(t *testing.T) {
	now := time.Date(2026, 11, 22, 8, 15, 0, 0, time.FixedZone("", 3600))
	if got := NewID(now, 3); got != "20261122-071500-brave-ant" {
		t.Errorf("got %s", got)
	}
	pattern := regexp.MustCompile(`^20261122-071500-[a-z]+-[a-z]+$`)
	seen := map[string]bool{}
	for r := range uint64(64 * 64) {
		id := NewID(now, r)
		if !pattern.MatchString(id) || !idPattern.MatchString(id) || seen[id] {
			t.Fatalf("%d gives %q", r, id)
		}
		seen[id] = true
	}
	NewID(now, 1<<64-1)
}

func TestCreateAndOpen(t *testing.T) {
	root := filepath.Join(t.TempDir(), "runs")
	d, err := Create(root, "20261122-071500-brave-otter")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.ReadConfig(); !errors.Is(err, forager.ErrNotFound) {
		t.Errorf("settings of an empty run: %v", err)
	}
	if err := d.WriteConfig([]byte("seed: 1\n")); err != nil {
		t.Fatal(err)
	}
	again, err := Open(d.Path() + "/")
	if err != nil || again.ID() != "20261122-071500-brave-otter" {
		t.Fatalf("got %+v, %v", again, err)
	}
	if data, err := again.ReadConfig(); err != nil || string(data) != "seed: 1\n" {
		t.Errorf("got %q, %v", data, err)
	}
	if _, err := Create(root, d.ID()); !errors.Is(err, forager.ErrInUse) || !strings.Contains(err.Error(), "--resume "+d.Path()) {
		t.Errorf("created twice: %v", err)
	}
	for _, id := range []string{"", ".", "..", "a/b", "-a", "A", "a b", strings.Repeat("a", 65)} {
		if _, err := Create(root, id); err == nil {
			t.Errorf("id %q was allowed", id)
		}
	}
	for _, path := range []string{root, filepath.Join(root, "absent")} {
		if _, err := Open(path); !errors.Is(err, forager.ErrNotFound) {
			t.Errorf("opened %s: %v", path, err)
		}
	}
}

func TestWriteFileKeepsOldOnError(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "target")
	if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(path, []byte("x")); err == nil {
		t.Fatal("a folder was replaced by a file")
	}
	if names := names(t, dir); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}

func names(tb testing.TB, dir string) []string {
	tb.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		tb.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestLock(t *testing.T) {
	d := create(t)
	unlock, err := d.Lock("learner")
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Lock("learner")
	if !errors.Is(err, forager.ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Fatalf("locked twice: %v", err)
	}
	other, err := d.Lock("replay")
	if err != nil {
		t.Fatalf("another role: %v", err)
	}
	for range 2 {
		if err := errors.Join(unlock(), other()); err != nil {
			t.Fatal(err)
		}
	}
	if unlock, err = d.Lock("learner"); err != nil {
		t.Fatalf("after unlock: %v", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Lock("../x"); err == nil {
		t.Error("a role left the directory")
	}
}

// TestLockOfKilledProcess: a process that is killed holds no lock.
func TestAwaitLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := AwaitLock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := AwaitLock(short, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a held lock was given away: %v", err)
	}
	taken := make(chan error, 1)
	go func() {
		again, err := AwaitLock(t.Context(), path)
		if err == nil {
			err = again()
		}
		taken <- err
	}()
	if err := errors.Join(unlock(), unlock(), <-taken); err != nil {
		t.Fatal(err)
	}
}

func TestLockOfKilledProcess(t *testing.T) {
	d := create(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), lockDirEnv+"="+d.Path())
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "<nil>\n" {
		t.Fatalf("child: %q, %v", line, err)
	}
	_, err = d.Lock("learner")
	if !errors.Is(err, forager.ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("stop process %d", cmd.Process.Pid)) {
		t.Errorf("beside the child: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil { // SIGKILL
		t.Fatal(err)
	}
	_ = cmd.Wait() // "signal: killed"
	unlock, err := d.Lock("learner")
	if err != nil {
		t.Fatalf("after kill -9: %v", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
}
