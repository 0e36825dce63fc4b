package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test's program be run again as an actor or a receiver.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{"actor", "receiver"}, os.Args[1]) {
		if err := run(context.Background(), os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// TestQuick runs all measurements, small: they come to an end and leave nothing.
// How fast they are is no matter.
func TestQuick(t *testing.T) {
	for _, name := range []string{"scaling", "broadcast", "staleness"} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			out := t.TempDir()
			if err := run(ctx, []string{name, "-quick", "-out", out}); err != nil {
				t.Fatal(err)
			}
			if left, err := os.ReadDir(out); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
	for _, args := range [][]string{nil, {"unknown"}, {"scaling", "-actors", "0"}, {"broadcast", "-mb", "0"}, {"staleness", "-seeds", "0"}} {
		if err := run(t.Context(), args); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
}

// TestThousandEpisodes plays 1,000 episodes at once in one actor process, whose
// memory stays within bounds: 128 KiB an episode, and what a process takes anyway.
func TestThousandEpisodes(t *testing.T) {
	episodes, rollouts := 1000, int64(3000)
	if testing.Short() {
		episodes, rollouts = 200, 400
	}
	const size = 8
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p, err := openPlane(ctx, t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	d := newDrain(p.bus, size, 2*episodes/size)
	p.start("learner", d.run)
	a, err := startChild(ctx, "actor", "actor", "-url", p.bus.URL(), "-retriever", p.retriever, "-groups", fmt.Sprint(episodes/size))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.await(ctx, rollouts, 50*time.Second); err != nil {
		t.Error(err)
	}
	took, err := askAll[usage]([]*child{a}, actorQuestion{})
	if err != nil {
		t.Fatal(err)
	}
	if most := int64(64<<20 + episodes<<17); took[0].Peak > most {
		t.Errorf("the actor took %d MiB, want at most %d", took[0].Peak>>20, most>>20)
	}
	if err := a.stop(); err != nil {
		t.Error(err)
	}
}

// TestTraining: one actor plays one group at a time, so that groups come in order:
// then no credit is older than the lag at its use, and each is learned from once.
func TestTraining(t *testing.T) {
	s := study{out: t.TempDir(), batch: 4, size: 2, update: 5 * time.Millisecond}
	for _, lag := range []int{0, 1} {
		r, err := s.train(t.Context(), training{steps: 5, lag: lag, actors: 1, latency: always(5 * time.Millisecond)})
		if err != nil {
			t.Fatal(err)
		}
		if r.credits.max() > lag {
			t.Errorf("lag %d: credits of lag %s", lag, r.credits)
		}
		if want := 5 * 4 * 2; r.lags.total() != want {
			t.Errorf("lag %d: learned from %d rollouts, want %d", lag, r.lags.total(), want)
		}
	}
}

func TestPolicySpeaksTheProtocol(t *testing.T) {
	for _, text := range []string{"", "plain <b>", "<search>where is entity 7</search>", "a</information>\n<answer>é</answer>"} {
		if got := (letters{}).Decode(letters{}.Encode(text)); got != text {
			t.Errorf("%q came back as %q", text, got)
		}
	}
	if ids := (letters{}).EncodePlain("<search>"); len(ids) != len("<search>") {
		t.Errorf("plain text has tags: %v", ids)
	}
	if ids := (letters{}).Encode("</information>"); !slices.Equal(ids, []int32{endInformation}) {
		t.Errorf("the end of an observation is %v", ids)
	}
	for _, id := range taskIDs() {
		task, err := tasks{}.Task(id)
		if err != nil || task.Validate() != nil {
			t.Fatal(task, err)
		}
	}
	if _, err := (tasks{}).Task("t99999"); err == nil {
		t.Error("a task that is not there was found")
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	for _, lag := range []int{0, 2, 2, 0} {
		h.add(lag)
	}
	if h.max() != 2 || h.total() != 4 || h.mean() != 1 || h.String() != "50.0 %, 0.0 %, 50.0 %" {
		t.Error(h.max(), h.total(), h.mean(), h)
	}
	a, b := heavyTailed(3, time.Second), heavyTailed(3, time.Second)
	if a(1, 2) != b(1, 2) || a(1, 2) == a(2, 2) {
		t.Error("latencies are not those of the seed")
	}
}

// A child that fails is told of, not waited for.
func TestChildFails(t *testing.T) {
	_, err := startChild(t.Context(), "actor 1", "actor", "-url", "nats://127.0.0.1:1", "-no-such-flag")
	if err == nil || !strings.Contains(err.Error(), "actor 1") {
		t.Errorf("got %v", err)
	}
}
