package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/forager-rl/forager"
)

// open starts an embedded server in a folder of the test's own.
func open(t testing.TB, change func(*Config)) *Bus {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Run, cfg.StoreDir, cfg.Provision = "laos", t.TempDir(), true
	if change != nil {
		change(&cfg)
	}
	b, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// join connects to the server of another bus, as another process would.
func join(t testing.TB, b *Bus, change func(*Config)) *Bus {
	t.Helper()
	return open(t, func(c *Config) {
		c.URL, c.StoreDir, c.AckWait, c.Provision = b.URL(), "", b.cfg.AckWait, false
		if change != nil {
			change(c)
		}
	})
}

func publish(t testing.TB, b *Bus, s Stream, id, text string) {
	t.Helper()
	if err := b.Publish(t.Context(), s, id, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// take fetches exactly n messages within 10 s.
func take(t testing.TB, b *Bus, s Stream, n int) []*Message {
	t.Helper()
	var got []*Message
	for end := time.Now().Add(10 * time.Second); len(got) < n && time.Now().Before(end); {
		more, err := b.Fetch(t.Context(), s, n-len(got), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, more...)
	}
	if len(got) != n {
		t.Fatalf("%d messages on %s, want %d", len(got), s, n)
	}
	return got
}

func ack(t testing.TB, messages ...*Message) {
	t.Helper()
	for _, m := range messages {
		if err := m.Ack(); err != nil {
			t.Fatal(err)
		}
	}
}

func info(t testing.TB, b *Bus, s Stream) StreamInfo {
	t.Helper()
	i, err := b.StreamInfo(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// await waits until so many messages are on a stream: what a server answers to a
// subject of a stream it stores beside what it does for clients.
func await(t testing.TB, b *Bus, s Stream, messages uint64) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		i := info(t, b, s)
		if i.Messages == messages {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %+v, want %d messages", s, i, messages)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestTwoClients(t *testing.T) {
	a := open(t, nil)
	b := join(t, a, nil)
	for i := range 10 {
		publish(t, a, Credits, fmt.Sprint(i), fmt.Sprint("credit ", i))
	}
	fromA, fromB := take(t, a, Credits, 4), take(t, b, Credits, 6)
	seen := map[string]bool{}
	for _, m := range append(fromA, fromB...) {
		seen[string(m.Data)] = true
	}
	if len(seen) != 10 {
		t.Errorf("%d different credits, want 10", len(seen))
	}
	if i := info(t, b, Credits); i.Messages != 10 || i.Held != 10 || i.Waiting != 0 || i.LastSequence != 10 {
		t.Errorf("before the acks: %+v", i)
	}
	ack(t, append(fromA, fromB...)...)
	if i := info(t, b, Credits); i.Messages != 0 || i.Held != 0 {
		t.Errorf("after the acks: %+v", i)
	}
	if got, err := b.Fetch(t.Context(), Credits, 5, 20*time.Millisecond); err != nil || len(got) != 0 {
		t.Errorf("empty stream: %v, %v", got, err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := a.Close(); err != nil {
		t.Error("second Close:", err)
	}
}

func TestRunsAreApart(t *testing.T) {
	a := open(t, nil)
	b := join(t, a, func(c *Config) { c.Run, c.Provision = "peru", true })
	publish(t, a, Credits, "1", "x")
	if i := info(t, b, Credits); i.Messages != 0 {
		t.Errorf("another run sees %d messages", i.Messages)
	}
}

// TestQueuedOnce: an id is queued once while it is in the stream, also after a
// restart of the server and while somebody works on it, and again after the ack.
func TestQueuedOnce(t *testing.T) {
	a := open(t, nil)
	for range 3 {
		publish(t, a, Credits, "run/7/1", "x")
	}
	if i := info(t, a, Credits); i.Messages != 1 {
		t.Fatalf("%d messages, want 1", i.Messages)
	}
	cfg := a.cfg
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	b := open(t, func(c *Config) { *c = cfg })
	publish(t, b, Credits, "run/7/1", "x")
	if i := info(t, b, Credits); i.Messages != 1 {
		t.Fatalf("after a restart: %d messages, want 1", i.Messages)
	}
	held := take(t, b, Credits, 1)
	publish(t, b, Credits, "run/7/1", "x")
	if i := info(t, b, Credits); i.Messages != 1 {
		t.Fatalf("while held: %d messages, want 1", i.Messages)
	}
	ack(t, held...)
	publish(t, b, Credits, "run/7/1", "x")
	publish(t, b, Credits, "", "without id")
	publish(t, b, Credits, "", "without id")
	if i := info(t, b, Credits); i.Messages != 3 {
		t.Fatalf("after the ack: %d messages, want 3", i.Messages)
	}
	if err := b.PurgeStream(t.Context(), Credits, info(t, b, Credits).LastSequence); err != nil {
		t.Fatal(err)
	}
	if i := info(t, b, Credits); i.Messages != 0 {
		t.Fatalf("after the purge: %d messages", i.Messages)
	}
	publish(t, b, Annotations, "same", "x")
	publish(t, b, Annotations, "same", "x")
	if i := info(t, b, Annotations); i.Messages != 1 {
		t.Fatalf("annotations: %d messages, want 1", i.Messages)
	}
}

// TestPurgeThrough: what is purged may be held and is acked as if it were not,
// what came later stays.
func TestPurgeThrough(t *testing.T) {
	b := open(t, nil)
	publish(t, b, Credits, "e1-0", "held")
	publish(t, b, Credits, "e1-1", "waiting")
	held := take(t, b, Credits, 1)
	last := info(t, b, Credits).LastSequence
	publish(t, b, Credits, "e2-0", "of the next learner")
	if err := b.PurgeStream(t.Context(), Credits, last); err != nil {
		t.Fatal(err)
	}
	if i := info(t, b, Credits); i.Messages != 1 || i.Waiting != 1 || i.Held != 0 {
		t.Fatalf("left: %+v", i)
	}
	begun := time.Now()
	if err := held[0].Extend(); err != nil {
		t.Error(err)
	}
	ack(t, held...)
	if took := time.Since(begun); took > b.cfg.Timeout/2 {
		t.Errorf("the ack of a purged message took %v", took)
	}
	if got := take(t, b, Credits, 1); string(got[0].Data) != "of the next learner" {
		t.Errorf("got %s", got[0].Data)
	}
}

// TestFetchEndsEarly: a message for somebody who has stopped waiting goes to
// another at once.
func TestFetchEndsEarly(t *testing.T) {
	a := open(t, func(c *Config) { c.AckWait = time.Hour })
	b := join(t, a, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := a.Fetch(ctx, Credits, 1, time.Minute)
		done <- err
	}()
	waiting(t, a, 1)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	publish(t, b, Credits, "e1-0", "x")
	take(t, b, Credits, 1)
}

// waiting polls until n requests for credits wait at the server.
func waiting(t *testing.T, b *Bus, n int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; {
		c, err := b.consumers[Credits].Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if c.NumWaiting == n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d requests wait, want %d", c.NumWaiting, n)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestHolderDies: what a dead client held goes to another, what a living one
// extends does not.
func TestHolderDies(t *testing.T) {
	a := open(t, func(c *Config) { c.AckWait = time.Second })
	b := join(t, a, nil)
	publish(t, a, Credits, "1", "of the dead")
	held := take(t, b, Credits, 1)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	again := take(t, a, Credits, 1)
	if string(again[0].Data) != "of the dead" || again[0].Redelivered != 1 || again[0].Sequence != held[0].Sequence {
		t.Errorf("got %+v", again[0])
	}
	for range 8 { // 2 s, twice the ack wait
		if err := again[0].Extend(); err != nil {
			t.Fatal(err)
		}
		if got, err := a.Fetch(t.Context(), Credits, 1, 250*time.Millisecond); err != nil || len(got) != 0 {
			t.Fatalf("an extended message was given to another: %v, %v", got, err)
		}
	}
	if err := again[0].Nak(0); err != nil {
		t.Fatal(err)
	}
	ack(t, take(t, a, Credits, 1)...)
	if i := info(t, a, Credits); i.Messages != 0 {
		t.Errorf("%d messages are left", i.Messages)
	}
}

// TestHeldWhenTheServerDied: what was being worked on when the process with the
// embedded server ended comes again at once, not after the ack wait.
func TestHeldWhenTheServerDied(t *testing.T) {
	a := open(t, func(c *Config) { c.AckWait = time.Hour })
	publish(t, a, Rollouts, "1", "x")
	take(t, a, Rollouts, 1)
	cfg := a.cfg
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	b := open(t, func(c *Config) { *c = cfg })
	ack(t, take(t, b, Rollouts, 1)...)
	if i := info(t, b, Rollouts); i.Messages != 0 {
		t.Errorf("%d messages are left", i.Messages)
	}
}

func TestFull(t *testing.T) {
	b := open(t, func(c *Config) {
		c.MaxRollouts, c.MaxDigests, c.MaxCredits, c.MaxAnnotations = 100<<10, 100<<10, 3, 100<<10
	})
	data := make([]byte, 10<<10)
	for _, s := range []Stream{Rollouts, Credits, Annotations} {
		n := 0
		var err error
		for ; err == nil && n < 100; n++ {
			err = b.Publish(t.Context(), s, fmt.Sprint(n), data)
		}
		if !errors.Is(err, forager.ErrFull) {
			t.Errorf("%s: after %d messages: %v, want ErrFull", s, n, err)
		}
	}
	ack(t, take(t, b, Rollouts, 1)...)
	if err := b.Publish(t.Context(), Rollouts, "next", data); err != nil {
		t.Errorf("after an ack there is room: %v", err)
	}
	for n := range 50 {
		publish(t, b, Digests, fmt.Sprint(n), fmt.Sprintf("%03d%s", n, data))
	}
	got := take(t, b, Digests, 1)[0]
	if i := info(t, b, Digests); i.Bytes > 100<<10 || string(got.Data[:3]) == "000" || i.LastSequence != 50 {
		t.Errorf("digests: %+v, oldest is %s", i, got.Data[:3])
	}
}

func TestReplay(t *testing.T) {
	b := open(t, nil)
	read := func(from uint64) (got []string) {
		t.Helper()
		err := b.Replay(t.Context(), Annotations, from, func(seq uint64, data []byte) error {
			got = append(got, fmt.Sprintf("%d:%s", seq, data))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := read(0); got != nil {
		t.Errorf("empty stream: %v", got)
	}
	for i := range 1000 {
		publish(t, b, Annotations, "", fmt.Sprint(i+1))
	}
	if got := read(1); len(got) != 1000 || got[0] != "1:1" || got[999] != "1000:1000" {
		t.Errorf("from 1: %d messages", len(got))
	}
	if got := read(999); !reflect.DeepEqual(got, []string{"999:999", "1000:1000"}) {
		t.Errorf("from 999: %v", got)
	}
	if got := read(1001); got != nil {
		t.Errorf("from the end: %v", got)
	}
	stop := errors.New("stop")
	if err := b.Replay(t.Context(), Annotations, 1, func(uint64, []byte) error { return stop }); err != stop { //nolint:errorlint // as it is
		t.Errorf("error of fn: %v", err)
	}
	if _, err := b.Fetch(t.Context(), Annotations, 1, time.Second); err == nil {
		t.Error("annotations were fetched")
	}
}

// TestFollowAcrossReconnect: the server goes away and comes back; the follower
// sees every message once and in order.
func TestFollowAcrossReconnect(t *testing.T) {
	a := open(t, nil)
	b := join(t, a, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	got := make(chan string, 100)
	done := make(chan error, 1)
	go func() {
		done <- b.Follow(ctx, Annotations, 1, func(seq uint64, data []byte) error {
			got <- fmt.Sprintf("%d:%s", seq, data)
			return nil
		})
	}()
	expect := func(want string) {
		t.Helper()
		select {
		case s := <-got:
			if s != want {
				t.Fatalf("got %s, want %s", s, want)
			}
		case <-ctx.Done():
			t.Fatalf("no message, want %s", want)
		}
	}
	publish(t, a, Annotations, "", "one")
	expect("1:one")
	publish(t, a, Annotations, "", "two")
	expect("2:two")

	cfg := a.cfg
	cfg.Listen = strings.TrimPrefix(a.URL(), "nats://")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = open(t, func(c *Config) { *c = cfg })
	publish(t, a, Annotations, "", "three")
	expect("3:three")
	publish(t, a, Annotations, "", "four")
	expect("4:four")
	cancel()
	if err := <-done; err != nil {
		t.Errorf("after the context ended: %v", err)
	}
}

func TestObjects(t *testing.T) {
	b := open(t, nil)
	ctx := t.Context()
	weights := make([]byte, 32<<20)
	rand.NewChaCha8([32]byte{1}).Read(weights) //nolint:errcheck // never fails
	if err := b.PutObject(ctx, "v1", weights); err != nil {
		t.Fatal(err)
	}
	if got, err := join(t, b, nil).GetObject(ctx, "v1"); err != nil || !bytes.Equal(got, weights) {
		t.Fatalf("%d bytes came back: %v", len(got), err)
	}
	for _, name := range []string{"v2", "v3", "empty"} {
		if err := b.PutObject(ctx, name, weights[:min(len(name)-2, 3)*4]); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.PutObject(ctx, "v2", []byte("newer")); err != nil {
		t.Fatal(err)
	}
	if got, err := b.GetObject(ctx, "v2"); err != nil || string(got) != "newer" {
		t.Errorf("v2: %q, %v", got, err)
	}
	if err := b.DropObjects(ctx, func(name string) bool { return name != "v2" && name != "v3" }); err != nil {
		t.Fatal(err)
	}
	if names, err := b.ListObjects(ctx); err != nil || !reflect.DeepEqual(names, []string{"v2", "v3"}) {
		t.Errorf("kept %v, %v", names, err)
	}
	if _, err := b.GetObject(ctx, "v1"); !errors.Is(err, forager.ErrNotFound) {
		t.Errorf("deleted object: %v", err)
	}
	if err := b.DeleteObject(ctx, "v1"); err != nil {
		t.Errorf("deleting again: %v", err)
	}
	if err := b.DropObjects(ctx, func(string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if names, err := b.ListObjects(ctx); err != nil || len(names) != 0 {
		t.Errorf("kept %v, %v", names, err)
	}
}

func TestObjectsFull(t *testing.T) {
	b := open(t, func(c *Config) { c.MaxObjects = 1 << 20 })
	if err := b.PutObject(t.Context(), "v1", make([]byte, 2<<20)); !errors.Is(err, forager.ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, addr := range []string{l.Addr().String(), closed.Addr().String()} {
		cfg := DefaultConfig()
		cfg.Run, cfg.URL, cfg.ConnectTimeout = "laos", "nats://user:secret@"+addr, 400*time.Millisecond
		start := time.Now()
		_, err = Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
		var hint *forager.HintError
		if err == nil || !errors.As(err, &hint) || !strings.Contains(err.Error(), addr+" does not answer within 400ms") ||
			strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := DefaultConfig()
	cfg.Run, cfg.StoreDir, cfg.Provision, cfg.Listen = "laos", t.TempDir(), true, l.Addr().String()
	if _, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler)); !errors.Is(err, forager.ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
}

func TestConfig(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"run id":           func(c *Config) { c.Run = "a.b" },
		"not a loopback":   func(c *Config) { c.Listen = "0.0.0.0:4222" },
		"no store folder":  func(c *Config) { c.StoreDir = "" },
		"ack_wait is 0s":   func(c *Config) { c.AckWait = 0 },
		"max_payload is 1": func(c *Config) { c.MaxPayload = 1 },
		"requests is 0":    func(c *Config) { c.Requests = 0 },
	} {
		cfg := DefaultConfig()
		cfg.Run, cfg.StoreDir = "laos", "x"
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}
