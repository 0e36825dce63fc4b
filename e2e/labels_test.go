//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/batch"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/rewardsrv/judge/judgetest"
)

// TestLabelsPaidOnce labels 20 digests of each step with two reward servers in
// processes of their own. One is killed while it works and started again. Every
// step must have one paid label, and the judge must have been asked once for each,
// and again only for what was in flight at the kill: asked, or answered and not yet
// on the stream.
//
//	go test -tags e2e -run LabelsPaidOnce ./e2e -v -full    # 100,000 digests of 5,000 steps
func TestLabelsPaidOnce(t *testing.T) {
	const inFlight, unpublished, rounds, few = 64, 32, 20, 20
	steps := 400
	if *full {
		steps = 5000
	}
	root := t.TempDir()
	world := filepath.Join(root, "world")
	start(t, "tasks", "tasks", "build", "--out", world).succeed(time.Minute)
	offered := digests(t, filepath.Join(world, "tasks.jsonl"), steps)

	common := []string{"--set", "run.root=" + root, "--run", "labels", "--set", "admin.listen="}
	nats := start(t, "nats", "nats", common, "--listen", "127.0.0.1:0")
	line := nats.awaitLine("NATS with JetStream at ", 30*time.Second)
	url := line[strings.Index(line, "nats://"):]
	home := joinBus(t, url, "labels")
	server := func(name string) (*process, *judge) {
		j := newJudge(t)
		p := start(t, name, "rewardsrv", common, "--nats", url,
			"--set", "judge.judge=llm", "--set", "judge.llm.model=e2e", "--set", "judge.llm.endpoints=[{base_url: '"+j.BaseURL()+"'}]",
			"--set", fmt.Sprint("judge.max_in_flight=", inFlight), "--set", "judge.claim_lease=2s",
			"--set", fmt.Sprint("judge.max_unpublished=", unpublished), "--set", fmt.Sprint("judge.publish_batch=", unpublished))
		p.awaitLine("rewardsrv ready", time.Minute)
		return p, j
	}
	// Each server is alone with the first or the last steps, and so has work whichever is faster.
	first, last := offered[:few], offered[steps-few:]
	doomed, judgeA := server("server a")
	offer(t, home, first, 0)
	doomed.await("call", time.Minute, func() bool { return judgeA.Calls() > 0 })
	other, judgeB := server("server b")
	offer(t, home, offered[few:steps*3/4], 0) // more come when the killed server is back
	before := judgeA.Calls()
	doomed.await("call among the first half", 2*time.Minute, func() bool {
		calls := judgeA.Calls()
		busy := calls > before // since the last look, and a call takes longer than that
		before = calls
		return busy && calls+judgeB.Calls() > steps/4
	})
	doomed.kill()
	again, judgeC := server("server a again")
	for round := range rounds {
		offer(t, home, offered[:steps-few], round)
	}
	labelled := func(want int) func() bool {
		return func() bool {
			info, err := home.StreamInfo(t.Context(), bus.Digests)
			return err == nil && info.Messages == 0 && len(paidLabels(t, home)) == want
		}
	}
	again.await("a label for every step but the last", 3*time.Minute, labelled(steps-few))
	other.stop()
	for round := range rounds {
		offer(t, home, last, round)
	}
	again.await("a label for every step", time.Minute, labelled(steps))
	again.stop()
	kept := 0 // labels of the killed server
	for query, endpoints := range paidLabels(t, home) {
		if len(endpoints) != 1 {
			t.Errorf("%s was paid for %d times", query, len(endpoints))
		}
		if endpoints[0] == judgeA.BaseURL() {
			kept++
		}
	}
	calls, lost := judgeA.Calls()+judgeB.Calls()+judgeC.Calls(), judgeA.Calls()-kept
	if calls != steps+lost {
		t.Errorf("%d judge calls, want %d and the %d that the killed server had not published", calls, steps, lost)
	}
	if bound := inFlight + 2*unpublished; lost > bound {
		t.Errorf("%d calls were lost with the killed server, which asks for %d at one time and holds back %d labels, want at most %d", lost, inFlight, unpublished, bound)
	}
	if judgeB.Calls() == 0 || judgeC.Calls() == 0 {
		t.Errorf("calls of the servers: %d, %d and %d: one had nothing to do", judgeA.Calls(), judgeB.Calls(), judgeC.Calls())
	}
	t.Logf("%d digests of %d steps: %d judge calls, %d of them in flight at kill -9; hit rate %.2f %%",
		rounds*steps, steps, calls, lost, 100*(1-float64(calls)/float64(rounds*steps)))
}

// judge is an endpoint that takes 50 ms and answers with the first label allowed.
type judge struct{ *judgetest.Endpoint }

func newJudge(t *testing.T) *judge {
	return &judge{judgetest.New(t, func(c judgetest.Call) judgetest.Reply {
		var schema struct {
			Properties map[string]struct {
				Enum []string `json:"enum"`
			} `json:"properties"`
		}
		if err := json.Unmarshal(c.Schema, &schema); err != nil && c.Schema != nil {
			t.Error(err)
		}
		answer := map[string]string{}
		for name, property := range schema.Properties {
			answer[name] = "It names what is asked."
			if len(property.Enum) > 0 {
				answer[name] = property.Enum[0]
			}
		}
		text, err := json.Marshal(answer)
		if err != nil {
			t.Error(err)
		}
		return judgetest.Reply{Text: string(text), Latency: 50 * time.Millisecond}
	})}
}

// digests makes one digest for each step, of tasks that the reward server knows.
func digests(t *testing.T, tasks string, steps int) []forager.TurnDigest {
	t.Helper()
	file, err := os.Open(tasks)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var ids []string
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var task struct{ ID string }
		if err := json.Unmarshal(lines.Bytes(), &task); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, task.ID)
	}
	list := make([]forager.TurnDigest, steps)
	for i := range list {
		passage := forager.Passage{ID: fmt.Sprint("passage-", i), Title: "Beer", Text: fmt.Sprintf("Beer %d is brewed in Belgium.", i)}
		list[i] = forager.TurnDigest{
			Run: "labels", TaskID: ids[i%len(ids)], Question: "Where is it brewed?", Query: fmt.Sprint("beer number ", i),
			Passages: []forager.Passage{passage}, Observation: passage.Text, Answer: "Belgium",
		}
	}
	return list
}

// joinBus joins the bus of the processes under test.
func joinBus(t *testing.T, url, run string) *bus.Bus {
	t.Helper()
	cfg := bus.DefaultConfig()
	cfg.Run, cfg.URL = run, url
	b, err := bus.Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// offer publishes one digest of each step as actors do, each of another rollout.
func offer(t *testing.T, b *bus.Bus, list []forager.TurnDigest, round int) {
	t.Helper()
	for part := range slices.Chunk(slices.Clone(list), 64) {
		for i := range part {
			part[i].RolloutID = fmt.Sprintf("labels/%d/%s", round, strings.ReplaceAll(part[i].Query, " ", "-"))
		}
		data, err := batch.EncodeDigests(part)
		if err == nil {
			err = b.Publish(t.Context(), bus.Digests, "", data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// paidLabels gives the endpoints that were asked, by query.
func paidLabels(t *testing.T, b *bus.Bus) map[string][]string {
	t.Helper()
	var mu sync.Mutex
	paid := map[string][]string{}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := b.Replay(ctx, bus.Annotations, 1, func(_ uint64, data []byte) error {
		list, err := batch.DecodeAnnotations(data)
		mu.Lock()
		defer mu.Unlock()
		for _, a := range list {
			if q := a.Judgement.Query; q != "" {
				paid[q] = append(paid[q], a.Judgement.Endpoint)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paid
}
