//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary is the program under test, built by TestMain.
var binary string

func TestMain(m *testing.M) { os.Exit(build(m)) }

func build(m *testing.M) int {
	folder, err := os.MkdirTemp("", "forager-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	binary = filepath.Join(folder, "forager")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "../cmd/forager").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "build forager: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// process is one running forager. The test kills what is left of it.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed once it has ended and its output is read
	err  error         // of Wait; read after done

	mu    sync.Mutex
	lines []string
}

// start runs "forager command args..."; args are strings and lists of them.
func start(t *testing.T, name, command string, args ...any) *process {
	t.Helper()
	list := []string{command}
	for _, arg := range args {
		switch arg := arg.(type) {
		case string:
			list = append(list, arg)
		case []string:
			list = append(list, arg...)
		default:
			t.Fatalf("argument %v", arg)
		}
	}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, name: name, cmd: exec.Command(binary, list...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = in, in
	err = p.cmd.Start()
	_ = in.Close()
	if err != nil {
		t.Fatal(err)
	}
	go p.follow(out)
	t.Cleanup(p.stop)
	return p
}

// follow keeps the output until the process has ended.
func (p *process) follow(out io.ReadCloser) {
	defer close(p.done)
	defer out.Close()
	scanner := bufio.NewScanner(out)
	for scanner.Scan() {
		p.mu.Lock()
		p.lines = append(p.lines, scanner.Text())
		p.mu.Unlock()
	}
	p.err = p.cmd.Wait()
}

func (p *process) output() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lines[:len(p.lines):len(p.lines)]
}

// await polls until the condition holds. It fails the test when the time is over
// or the process has ended before.
func (p *process) await(what string, limit time.Duration, holds func() bool) {
	p.t.Helper()
	deadline := time.Now().Add(limit)
	for ended := false; !holds(); {
		if ended {
			p.t.Fatalf("%s ended (%v) without %s", p.name, p.err, what)
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s: no %s within %s", p.name, what, limit)
		}
		select {
		case <-p.done:
			ended = true
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// awaitLine waits for a line of output that contains the text.
func (p *process) awaitLine(text string, limit time.Duration) string {
	p.t.Helper()
	found := ""
	p.await(fmt.Sprintf("line with %q", text), limit, func() bool {
		for _, line := range p.output() {
			if strings.Contains(line, text) {
				found = line
				return true
			}
		}
		return false
	})
	return found
}

// succeed waits for the process to end without an error.
func (p *process) succeed(limit time.Duration) {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		p.t.Fatalf("%s has not ended within %s", p.name, limit)
	}
	if p.err != nil {
		p.t.Fatalf("%s: %v", p.name, p.err)
	}
}

// signal sends a signal.
func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%s: %v: %v", p.name, s, err)
	}
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// stop ends the process in order, or by force, and shows its output when the
// test has failed.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // it may be frozen, or have ended
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		p.t.Errorf("%s does not stop", p.name)
		p.kill()
	}
	if p.t.Failed() {
		lines := p.output()
		p.t.Logf("end of the output of %s:\n%s", p.name, strings.Join(lines[max(0, len(lines)-40):], "\n"))
	}
}
