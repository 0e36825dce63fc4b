package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/forager-rl/forager/node"
)

// progress shows how far long work has come: a live bar on a terminal, else
// plain lines, at most one a second but for the first and the last.
type progress struct {
	out  io.Writer
	live bool
	now  func() time.Time

	mu     sync.Mutex
	bar    *progressbar.ProgressBar // nil until something is shown
	last   time.Time                // of the last plain line
	shown  string                   // the phase that was shown last
	unsaid string                   // a plain line held back
}

// barSteps is the resolution of the bar.
const barSteps = 1000

func newProgress(out io.Writer) *progress {
	return &progress{out: out, live: isTerminal(out), now: time.Now}
}

// isTerminal tells whether somebody is likely to look at w as it is written.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// observer shows what a node does.
func (p *progress) observer() node.Observer {
	return node.Observer{Step: p.step, Phase: p.phase, Notice: p.notice}
}

// step shows a finished learner step.
func (p *progress) step(u node.StepUpdate) {
	line, short, share := stepText(u)
	p.show("step", line, short, share, u.Step >= u.Steps)
}

// phase shows other work.
func (p *progress) phase(name string, done, total int) {
	line := phaseText(name, done, total)
	p.show(name, line, line, float64(done)/float64(max(1, total)), total > 0 && done >= total)
}

// phaseText describes other work, with room so that the lines of a phase align.
func phaseText(name string, done, total int) string {
	switch {
	case total <= 0:
		return fmt.Sprintf("%s %s", name, thousands(done))
	case total == 1 && done == 0:
		return name + " ..."
	case total == 1:
		return name + " done"
	}
	of := thousands(total)
	return fmt.Sprintf("%s %*s/%s", name, len(of), thousands(done), of)
}

// notice writes a line for a person above the bar.
func (p *progress) notice(text string) { _, _ = fmt.Fprintln(p.above(p.out), text) }

// above gives a writer to w that keeps clear of the bar, for logs.
func (p *progress) above(w io.Writer) io.Writer { return aboveBar{p, w} }

// close ends the bar's line, and says a line that was held back.
func (p *progress) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaveBar()
	p.flush()
}

// leaveBar keeps what the bar shows and goes on below it.
func (p *progress) leaveBar() {
	if p.bar != nil {
		fmt.Fprintln(p.out)
		p.bar = nil
	}
}

func (p *progress) flush() {
	if p.unsaid != "" {
		fmt.Fprintln(p.out, p.unsaid)
		p.unsaid = ""
	}
}

// show draws the bar, or writes a line unless the last one is too recent.
func (p *progress) show(phase, line, short string, share float64, final bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live {
		if phase != p.shown {
			p.leaveBar()
		}
		if p.bar == nil {
			p.bar = newBar(p.out)
		}
		p.shown = phase
		p.bar.Describe(short)
		_ = p.bar.Set(int(barSteps * min(1, max(0, share)))) // fails only beyond the end
		if final {
			p.leaveBar()
		}
		return
	}
	if phase != p.shown {
		p.flush()
	}
	if now := p.now(); final || phase != p.shown || now.Sub(p.last) >= time.Second {
		p.shown, p.last, p.unsaid = phase, now, ""
		fmt.Fprintln(p.out, line)
		return
	}
	p.unsaid = line
}

func newBar(out io.Writer) *progressbar.ProgressBar {
	return progressbar.NewOptions(barSteps,
		progressbar.OptionSetWriter(out),
		progressbar.OptionFullWidth(),
		progressbar.OptionSetElapsedTime(false),
		progressbar.OptionSetPredictTime(false),
		progressbar.OptionSetTheme(progressbar.ThemeASCII),
	)
}

// stepText describes a step: a whole line, a short one that leaves room for a
// bar on 80 columns, and the share of the run that is done.
func stepText(u node.StepUpdate) (line, short string, share float64) {
	share = float64(u.Step) / float64(max(1, u.Steps))
	if u.Limit > 0 {
		share = max(share, u.ElapsedSeconds/u.Limit.Seconds())
	}
	left := u.Remaining.Round(time.Second).String()
	line = fmt.Sprintf("step %4d/%d  reward %.2f  em %.2f  searches %.1f  %s tok/s  lag %.1f  left %s",
		u.Step, u.Steps, u.Reward, u.EM, u.Searches, thousands(int(math.Round(u.TokensPerSecond))), u.LagMean, left)
	short = fmt.Sprintf("%d/%d rew %.2f em %.2f srch %.1f %.1fk tok/s lag %.1f %s",
		u.Step, u.Steps, u.Reward, u.EM, u.Searches, u.TokensPerSecond/1000, u.LagMean, left)
	return line, short, share
}

// thousands writes 7842 as 7,842.
func thousands(n int) string {
	digits := strconv.Itoa(n)
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// aboveBar takes the bar away, writes, and draws it again.
type aboveBar struct {
	p *progress
	w io.Writer
}

func (a aboveBar) Write(data []byte) (int, error) {
	a.p.mu.Lock()
	defer a.p.mu.Unlock()
	if a.p.bar == nil {
		return a.w.Write(data)
	}
	_ = a.p.bar.Clear()
	n, err := a.w.Write(data)
	_ = a.p.bar.RenderBlank()
	return n, err
}
