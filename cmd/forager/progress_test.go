package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/forager-rl/forager/learner"
	"github.com/forager-rl/forager/node"
)

func stepUpdate(step uint64) node.StepUpdate {
	return node.StepUpdate{
		StepMetrics: learner.StepMetrics{Step: step, Reward: 0.41, EM: 0.405, Searches: 2.08, TokensPerSecond: 7841.6, LagMean: 0.8},
		Steps:       200, Remaining: 200*time.Second + 300*time.Millisecond,
	}
}

func TestStepText(t *testing.T) {
	line, short, share := stepText(stepUpdate(12))
	if want := "step   12/200  reward 0.41  em 0.41  searches 2.1  7,842 tok/s  lag 0.8  left 3m20s"; line != want {
		t.Errorf("got  %s\nwant %s", line, want)
	}
	if want := "12/200 rew 0.41 em 0.41 srch 2.1 7.8k tok/s lag 0.8 3m20s"; short != want {
		t.Errorf("got  %s\nwant %s", short, want)
	}
	if share != 0.06 {
		t.Errorf("share is %g, want 0.06", share)
	}
	limited := stepUpdate(12)
	limited.Limit, limited.ElapsedSeconds = time.Minute, 30
	if _, _, share = stepText(limited); share != 0.5 {
		t.Errorf("share under a time limit is %g, want 0.5", share)
	}
}

// Plain lines come at most once a second, but the first, the last and the last
// of each phase are never left out.
func TestPlainLines(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	p := newProgress(&out)
	p.now = func() time.Time { return now }
	p.notice("run directory runs/x")
	p.phase("index", 0, 1)
	p.phase("index", 1, 1)
	for i := range uint64(8) {
		p.step(stepUpdate(i + 1))
		now = now.Add(300 * time.Millisecond)
	}
	p.phase("evaluate", 1, 1000)
	p.phase("evaluate", 2, 1000)
	p.phase("evaluate", 1000, 1000)
	p.step(stepUpdate(199))
	p.step(stepUpdate(199))
	p.close()
	var got []string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.TrimSpace(strings.Split(line, "  reward")[0]))
	}
	want := []string{
		"run directory runs/x", "index ...", "index done", "step    1/200", "step    5/200", "step    8/200",
		"evaluate     1/1,000", "evaluate 1,000/1,000", "step  199/200", "step  199/200",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestLiveBar(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out)
	p.live = true
	p.step(stepUpdate(100))
	p.notice("a notice")
	p.step(stepUpdate(200))
	p.close()
	screen := screenOf(out.String())
	if len(screen) != 2 || screen[0] != "a notice" || !strings.HasPrefix(screen[1], "200/200 rew 0.41") || !strings.Contains(screen[1], "100%") {
		t.Errorf("the screen shows %q", screen)
	}
	for _, line := range screen {
		if len(line) > 80 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
}

// screenOf plays carriage returns and gives the lines that stay.
func screenOf(written string) []string {
	var lines []string
	for line := range strings.Lines(written) {
		shown := []byte{}
		column := 0
		for _, c := range []byte(strings.TrimSuffix(line, "\n")) {
			if c == '\r' {
				column = 0
				continue
			}
			if column < len(shown) {
				shown[column] = c
			} else {
				shown = append(shown, c)
			}
			column++
		}
		if text := strings.TrimRight(string(shown), " "); text != "" {
			lines = append(lines, text)
		}
	}
	return lines
}

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000"} {
		if got := thousands(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}
