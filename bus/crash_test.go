package bus

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"testing"
)

// childVar tells the test binary that it is the child of TestKilled, and where
// its server keeps its files.
const childVar = "FORAGER_BUS_TEST_CHILD"

func TestMain(m *testing.M) {
	if folder := os.Getenv(childVar); folder != "" {
		publishForEver(folder)
	}
	os.Exit(m.Run())
}

// publishForEver prints the number of every message that was acked.
func publishForEver(folder string) {
	cfg := DefaultConfig()
	cfg.Run, cfg.StoreDir, cfg.Provision = "laos", folder, true
	b, err := Open(context.Background(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		for _, s := range []Stream{Credits, Annotations} {
			if err := b.Publish(context.Background(), s, fmt.Sprint(i), []byte(fmt.Sprint(i))); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
		fmt.Println(i)
	}
}

// TestKilled: the process with the embedded server is killed with SIGKILL while
// it publishes; every message that was acked is there afterwards, once.
func TestKilled(t *testing.T) {
	folder := t.TempDir()
	for round := range 2 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), childVar+"="+folder)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		acked := 0
		for ; acked < 300+200*round && lines.Scan(); acked++ {
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it printed before it died was acked as well
			acked++
		}
		_ = child.Wait() // killed, as it should be
		if acked < 300 {
			t.Fatalf("the child published only %d messages", acked)
		}

		b := open(t, func(c *Config) { c.StoreDir = folder })
		seen := map[string]int{}
		err = b.Replay(t.Context(), Annotations, 1, func(_ uint64, data []byte) error {
			seen[string(data)]++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		credits := info(t, b, Credits)
		for i := range acked {
			if n := seen[fmt.Sprint(i)]; n != 1 {
				t.Fatalf("round %d: annotation %d of %d is there %d times", round, i, acked, n)
			}
		}
		if int(credits.Messages) < acked {
			t.Fatalf("round %d: %d credits, %d were acked", round, credits.Messages, acked)
		}
		ack(t, take(t, b, Credits, int(credits.Messages))...)
		if err := b.PurgeStream(t.Context(), Annotations, info(t, b, Annotations).LastSequence); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
