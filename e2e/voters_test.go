//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestVoterIsReplaced: a voter and its disk are lost while training runs. A new
// one takes its place as docs/operations.md says, and the steps go on meanwhile.
func TestVoterIsReplaced(t *testing.T) {
	const steps = 1_000_000 // the test ends before
	a := startBus(t, "voters", steps)
	addresses, root := freeAddresses(t, 3), t.TempDir()
	var peers []string
	for i, address := range addresses {
		peers = append(peers, fmt.Sprintf("voter-%d=%s", i, address))
	}
	founders := "cluster.peers=[" + strings.Join(peers, ", ") + "]"
	volume := func(i int) string { return filepath.Join(root, fmt.Sprint(i)) }
	voter := func(i int, settings ...string) *process {
		name := fmt.Sprintf("voter-%d", i)
		return a.role(name, "cluster", append(settings, "--set", "run.root="+volume(i),
			"--set", "cluster.node_id="+name, "--set", "cluster.listen="+addresses[i])...)
	}
	var lost *process
	for i := range addresses {
		lost = voter(i, "--set", founders)
	}
	a.role("replay", "replay")
	a.role("retriever", "retriever")
	a.role("actor", "actor")
	learner := a.role("learner", "learner")
	learner.await("two steps", 2*time.Minute, func() bool { return a.steps() >= 2 })

	lost.kill()
	if err := os.RemoveAll(volume(2)); err != nil {
		t.Fatal(err)
	}
	a.progress(learner, 2, time.Minute)
	if _, err := a.forager("voters", "remove", "voter-2"); err != nil {
		t.Fatal(err)
	}
	next := voter(2, "--set", "cluster.join=true")
	next.await("status that tells it has no vote", time.Minute, func() bool {
		said, _ := a.forager("status") // fails while something is wrong, too
		return strings.Contains(said, "cluster node voter-2 runs without a vote")
	})
	next.await("vote", time.Minute, func() bool {
		_, err := a.forager("voters", "add", "voter-2")
		return err == nil
	})
	a.progress(learner, 2, time.Minute)

	// The new one counts: with another voter away it is half of the majority.
	if _, err := a.forager("voters", "transfer", "voter-2"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.forager("voters", "remove", "voter-0"); err != nil {
		t.Fatal(err)
	}
	a.progress(learner, 2, time.Minute)
	learner.signal(syscall.SIGTERM) // while the group is there to give its lease back to
	learner.succeed(time.Minute)
	checkSteps(t, a.dir, a.steps())
}

// forager asks the run with a command and gives what that said.
func (a *apart) forager(args ...string) (string, error) {
	a.t.Helper()
	args = append(args, "--nats", a.url, "--run", filepath.Base(a.dir))
	out, err := exec.CommandContext(a.t.Context(), binary, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("forager %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// freeAddresses gives addresses on loopback that nobody listens on.
func freeAddresses(t *testing.T, n int) (list []string) {
	t.Helper()
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close() // all are held until the last is found
		list = append(list, listener.Addr().String())
	}
	return list
}
