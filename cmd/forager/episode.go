package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/fatih/color"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/reward"
)

// palette is the colours of an episode; each is a plain Sprint without colour.
type palette struct{ heading, tag, policy, outside, good, bad func(...any) string }

// newPalette decides on colour: auto means on a terminal, unless NO_COLOR is
// set (https://no-color.org).
func newPalette(when string, terminal bool) (palette, error) {
	on := when == "always"
	switch when {
	case "always", "never":
	case "auto":
		on = terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	default:
		return palette{}, usageError{fmt.Errorf("--color is %q, want auto, always or never", when)}
	}
	paint := func(attributes ...color.Attribute) func(...any) string {
		c := color.New(attributes...)
		if on {
			c.EnableColor()
		} else {
			c.DisableColor()
		}
		return c.SprintFunc()
	}
	return palette{
		heading: paint(color.Bold), tag: paint(color.FgCyan), policy: paint(color.FgYellow), outside: paint(color.Faint),
		good: paint(color.FgGreen), bad: paint(color.FgRed),
	}, nil
}

// vocabulary is what showing tokens needs of a tokenizer.
type vocabulary interface {
	Decode(ids []int32) string
}

// view shows episodes.
type view struct {
	palette
	tokenizer vocabulary
	task      *forager.Task // nil when unknown
	tokens    bool          // mark the tokens in the loss
	logprobs  bool          // and give their log-probabilities
}

// write shows one episode.
func (v *view) write(w io.Writer, r *forager.Rollout) error {
	out := bufio.NewWriter(w) // keeps the first error for Flush
	v.summary(out, r)
	position := int32(0)
	if len(r.Turns) > 0 {
		position = r.Turns[0].Action.Start
	}
	fmt.Fprintf(out, "\n%s\n", v.heading("prompt"))
	v.text(out, r, forager.Span{End: position})
	for i, t := range r.Turns {
		fmt.Fprintf(out, "\n%s\n", v.heading(turnTitle(r, i)))
		for _, s := range []forager.Span{t.Action, t.Observation} {
			if s.Len() == 0 {
				continue
			}
			v.text(out, r, forager.Span{Start: position, End: s.Start})
			v.text(out, r, s)
			position = max(position, s.End)
		}
		for j, id := range t.DocIDs {
			score := ""
			if j < len(t.DocScores) {
				score = fmt.Sprintf("  score %.2f", t.DocScores[j])
			}
			fmt.Fprintf(out, "  passage %s%s\n", visible(id), score)
		}
		v.labels(out, r, i)
	}
	v.text(out, r, forager.Span{Start: position, End: int32(len(r.Tokens))})
	return out.Flush()
}

// summary is what is known of the episode as a whole.
func (v *view) summary(out io.Writer, r *forager.Rollout) {
	fmt.Fprintf(out, "%s  task %s  data set %s", v.heading(r.ID), visible(r.TaskID), visible(r.Dataset))
	if v.task != nil && v.task.Hops > 0 {
		fmt.Fprintf(out, "  hops %d", v.task.Hops)
	}
	fmt.Fprintf(out, "\nfinish %s  searches %d  policy %s  actor %s  tokens %s, %s in the loss\n",
		r.Finish, r.Searches(), versions(r), visible(r.Actor), thousands(len(r.Tokens)), thousands(r.PolicyTokens()))
	if v.task != nil {
		fmt.Fprintf(out, "question  %s\nwanted    %s\n", visible(v.task.Question), visible(strings.Join(v.task.Answers, " | ")))
	}
	paint := v.bad
	if r.Rewards[reward.SourceEM] == 1 {
		paint = v.good
	}
	answer := "none"
	if r.Answer != "" {
		answer = paint(visible(r.Answer))
	}
	fmt.Fprintf(out, "answer    %s\nrewards  ", answer)
	for _, source := range slices.Sorted(maps.Keys(r.Rewards)) {
		fmt.Fprintf(out, " %s %.3f", visible(source), r.Rewards[source])
	}
	fmt.Fprintln(out)
	v.labels(out, r, forager.WholeRollout)
}

func turnTitle(r *forager.Rollout, i int) string {
	t := r.Turns[i]
	title := fmt.Sprintf("turn %d  %s  %d tokens", i+1, t.Kind, t.Action.Len())
	for _, s := range r.Versions {
		if s.Start < t.Action.End && t.Action.Start < s.End {
			title += fmt.Sprintf("  v%d", s.Version)
		}
	}
	return title
}

func (v *view) labels(out io.Writer, r *forager.Rollout, turn int) {
	for _, a := range r.Annotations {
		if a.Turn != turn {
			continue
		}
		value := "not labelled"
		if a.Value != nil {
			value = fmt.Sprintf("%.3f", *a.Value)
		}
		fmt.Fprintf(out, "  label %s %s  judge %s  rubric %s", visible(a.Source), value, visible(a.Judge), visible(a.Rubric))
		if a.Rationale != "" {
			fmt.Fprintf(out, "  %q", a.Rationale)
		}
		fmt.Fprintln(out)
	}
}

// tags are those of the episode protocol.
var tags = regexp.MustCompile(`</?(?:think|search|information|answer)>`)

// text shows a span of tokens, indented.
func (v *view) text(out io.Writer, r *forager.Rollout, s forager.Span) {
	if s.Len() <= 0 {
		return
	}
	var text strings.Builder
	for start := s.Start; start < s.End; {
		end := start + 1
		if r.LossMask[start] && (v.tokens || v.logprobs) {
			text.WriteString(v.token(r, start))
		} else {
			// Runs of tokens are decoded together: a character may take several.
			for end < s.End && r.LossMask[end] == r.LossMask[start] {
				end++
			}
			text.WriteString(v.run(v.tokenizer.Decode(r.Tokens[start:end]), r.LossMask[start]))
		}
		start = end
	}
	for line := range strings.Lines(strings.Trim(text.String(), "\n")) {
		fmt.Fprintf(out, "  %s\n", strings.TrimRight(line, "\n"))
	}
}

// run shows text that is either all from the policy or all from outside. Each
// line is coloured on its own, so that lines can be cut and indented.
func (v *view) run(text string, fromPolicy bool) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		body := strings.TrimSuffix(line, "\n")
		b.WriteString(v.line(visible(body), fromPolicy))
		b.WriteString(line[len(body):])
	}
	return b.String()
}

func (v *view) line(text string, fromPolicy bool) string {
	if !fromPolicy {
		if text == "" {
			return ""
		}
		return v.outside(text)
	}
	return tags.ReplaceAllStringFunc(text, func(tag string) string { return v.tag(tag) })
}

// token shows one token of the loss in brackets.
func (v *view) token(r *forager.Rollout, i int32) string {
	shown := strings.ReplaceAll(visible(v.tokenizer.Decode(r.Tokens[i:i+1])), "\n", "⏎")
	if v.logprobs {
		shown += " " + strconv.FormatFloat(float64(r.Logprobs[i]), 'f', 2, 32)
	}
	return v.policy("[" + shown + "]")
}

// visible spells out control characters, so that text from outside cannot move
// the cursor or change the terminal.
func visible(text string) string {
	var b strings.Builder
	for _, c := range text {
		if unicode.IsControl(c) && c != '\n' && c != '\t' {
			b.WriteString(strings.Trim(strconv.QuoteRune(c), "'"))
			continue
		}
		b.WriteRune(c)
	}
	return b.String()
}
