package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/cluster"
	"github.com/forager-rl/forager/node"
)

// screen is the width that a status fits.
const screen = 100

// statusView shows the status of a run to a person.
type statusView struct{ palette }

// write shows a status: what is wrong first.
func (v statusView) write(w io.Writer, s *node.Status) error {
	out := bufio.NewWriter(w) // keeps the first error for Flush
	verdict := v.good("healthy")
	if wrong := s.Wrong(); wrong > 0 {
		verdict = v.bad(things(wrong) + " wrong")
	}
	fmt.Fprintf(out, "run %s at %s, %s UTC: %s\n", v.heading(visible(s.Run)), visible(s.Bus), s.Time.Format("15:04:05"), verdict)
	for _, f := range s.Findings {
		paint := v.bad
		if f.Level == node.LevelNote {
			paint = v.policy
		}
		fmt.Fprintln(out)
		for i, line := range wrapped(string(f.Level)+": "+f.Says, screen, 2) {
			if i == 0 {
				line = strings.Replace(line, string(f.Level), paint(string(f.Level)), 1)
			}
			fmt.Fprintln(out, line)
		}
		for _, line := range wrapped("  -> "+f.Do, screen, 5) {
			fmt.Fprintln(out, line)
		}
	}
	v.members(out, s)
	v.facts(out, s)
	v.streams(out, s)
	return out.Flush()
}

// members lists the processes.
func (v statusView) members(out io.Writer, s *node.Status) {
	if len(s.Members) == 0 {
		return
	}
	behind := map[string]node.ActorStatus{}
	for _, a := range s.Actors {
		behind[a.Name] = a
	}
	rows := [][]string{{"role", "host", "pid", "age", "version", "policy", "state"}}
	for _, m := range s.Members {
		rows = append(rows, []string{
			clip(roleNames(m.Roles), 20), clip(m.Host, 30), strconv.Itoa(m.PID), node.Elapsed(s.Time.Sub(m.Started).Seconds()),
			clip(m.Version, 12), policyText(m, behind[m.Name]), stateText(m),
		})
	}
	fmt.Fprintln(out)
	v.table(out, rows)
}

// table aligns rows under a heading. A last cell that does not fit goes to lines
// of its own.
func (v statusView) table(out io.Writer, rows [][]string) {
	last := len(rows[0]) - 1
	widths := make([]int, last)
	for _, row := range rows {
		for i := range widths {
			widths[i] = max(widths[i], len([]rune(row[i])))
		}
	}
	for n, row := range rows {
		line := ""
		for i, width := range widths {
			line += row[i] + strings.Repeat(" ", width-len([]rune(row[i]))+2)
		}
		switch {
		case n == 0:
			line = v.heading(strings.TrimRight(line+row[last], " "))
		case len([]rune(line))+len([]rune(row[last])) <= screen:
			line += row[last]
		default:
			line = strings.TrimRight(line, " ") + "\n" + strings.Join(wrapped("    "+row[last], screen, 4), "\n")
		}
		fmt.Fprintln(out, strings.TrimRight(line, " "))
	}
}

// roleNames joins roles; a process that plays them all is the whole run.
func roleNames(roles []forager.Role) string {
	if len(roles) == len(forager.Roles()) {
		return "all"
	}
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = string(r)
	}
	return strings.Join(names, "+")
}

// policyText is the version that a process plays, and how far it is behind.
func policyText(m cluster.Member, a node.ActorStatus) string {
	switch {
	case m.Policy == nil:
		return "-"
	case a.Behind > 0:
		return fmt.Sprintf("%d (-%d)", *m.Policy, a.Behind)
	}
	return strconv.FormatUint(uint64(*m.Policy), 10)
}

// stateText says what a process does, or what it waits for.
func stateText(m cluster.Member) string {
	var parts []string
	add := func(holds bool, format string, args ...any) {
		if holds {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	if r := m.Raft; r != nil {
		add(r.Leader == r.Node, "leads")
		add(r.Leader != r.Node && r.Leader != "", "follows %s", r.Leader)
		add(r.Leader == "", "knows no leader")
	}
	add(m.Epoch > 0, "learns, step %d", m.Step)
	add(m.Credits > 0, "plays %s", plural(m.Credits, "group"))
	add(m.Labels > 0, "%s to judge", plural(m.Labels, "step"))
	for _, w := range m.Waits {
		add(true, "waits %s for %s", node.Elapsed(w.Seconds), w.What)
	}
	return visible(strings.Join(parts, "; "))
}

// facts shows what the run has agreed on, and its backlogs.
func (v statusView) facts(out io.Writer, s *node.Status) {
	line := func(name, format string, args ...any) {
		for i, text := range wrapped(fmt.Sprintf("%-9s", name)+fmt.Sprintf(format, args...), screen, 9) {
			if i == 0 {
				text = v.heading(text[:9]) + text[9:]
			}
			fmt.Fprintln(out, text)
		}
	}
	fmt.Fprintln(out)
	if r := s.Raft; len(r.Voters) > 0 {
		voters := make([]string, len(r.Voters))
		for i, voter := range r.Voters {
			if voters[i] = visible(voter.Node); !voter.Answers {
				voters[i] += " (silent)"
			}
		}
		line("raft", "leader %s, term %d; voters %s", cmp.Or(visible(r.Leader), "unknown"), r.Term, strings.Join(voters, ", "))
	}
	if l := s.Lease; l != nil {
		switch {
		case l.Holder == "":
			line("lease", "free; epoch %d was the last", l.Epoch)
		case l.RemainingSeconds < 0:
			line("lease", "%s, epoch %d; ran out %s ago", visible(l.Holder), l.Epoch, node.Elapsed(-l.RemainingSeconds))
		default:
			line("lease", "%s, epoch %d, for another %s", visible(l.Holder), l.Epoch, node.Elapsed(l.RemainingSeconds))
		}
		if m := s.Weights; m != nil {
			line("weights", "version %d of step %d, %s, published %s ago", m.Version, m.Step, byteText(uint64(m.Bytes)), node.Elapsed(m.AgeSeconds))
		} else {
			line("weights", "none published yet")
		}
	}
	if c := s.Credits; c != nil {
		line("credits", "%d wait, %d are played; %s, %.1f waiting for each", c.Waiting, c.Held, plural(c.Actors, "actor process", "actor processes"), c.PerActor)
	}
	if t := s.Replay; t != nil {
		line("replay", "%s of %s groups (%d lent), %s on disk; since its start %s stored, %s learned from, %s too old, %s evicted",
			count(t.Groups), count(t.Capacity), t.Lent, byteText(uint64(t.Bytes)), count(t.Inserted), count(t.Committed), count(t.Stale), count(t.Evicted))
	}
	if l := s.Labels; l.Servers > 0 || l.Digests > 0 {
		line("labels", "%s to judge, %s not taken yet; %s", plural(l.Waiting, "step"), plural(int(l.Digests), "message"), plural(l.Servers, "reward server"))
	}
}

// streams shows how full each stream is.
func (v statusView) streams(out io.Writer, s *node.Status) {
	if len(s.Streams) == 0 {
		return
	}
	rows := [][]string{{"stream", "messages", "bytes", "waiting", "held", "limit", "full"}}
	for _, x := range s.Streams {
		limit := "-"
		switch {
		case x.MaxMessages > 0:
			limit = count(x.MaxMessages)
		case x.MaxBytes > 0:
			limit = byteText(uint64(x.MaxBytes))
		}
		rows = append(rows, []string{
			x.Name, count(x.Messages), byteText(x.Bytes), count(x.Waiting), count(x.Held), limit, fmt.Sprintf("%3.0f %%", math.Floor(100*x.Fill)),
		})
	}
	fmt.Fprintln(out)
	v.table(out, rightAligned(rows))
}

// rightAligned pads all cells but the first of each row to the left.
func rightAligned(rows [][]string) [][]string {
	for column := 1; column < len(rows[0]); column++ {
		width := 0
		for _, row := range rows {
			width = max(width, len([]rune(row[column])))
		}
		for _, row := range rows {
			row[column] = strings.Repeat(" ", width-len([]rune(row[column]))) + row[column]
		}
	}
	return rows
}

// wrapped breaks text at spaces into lines of at most width columns; those after
// the first are indented.
func wrapped(text string, width, indent int) []string {
	var lines []string
	text = visible(strings.ReplaceAll(text, "\n", " "))
	for runes := []rune(text); ; {
		if len(runes) <= width {
			return append(lines, string(runes))
		}
		cut := width
		for cut > indent && runes[cut] != ' ' {
			cut--
		}
		if cut == indent { // one long word
			cut = width
		}
		lines = append(lines, strings.TrimRight(string(runes[:cut]), " "))
		rest := strings.TrimLeft(string(runes[cut:]), " ")
		runes = slices.Concat([]rune(strings.Repeat(" ", indent)), []rune(rest))
	}
}

// clip shortens a text to at most n columns.
func clip(text string, n int) string {
	runes := []rune(visible(text))
	if len(runes) <= n {
		return string(runes)
	}
	return string(runes[:n-1]) + "…"
}

// count writes 7842 as 7,842.
func count[N int | int64 | uint64](n N) string { return thousands(int(n)) }

// plural counts things: "1 group", "2 groups".
func plural(n int, one string, many ...string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + append(many, one+"s")[0]
}

// byteText writes 2500000 as 2.5 MB.
func byteText(n uint64) string {
	value, unit := float64(n), "B"
	for _, larger := range []string{"kB", "MB", "GB", "TB"} {
		if value < 1000 {
			break
		}
		value, unit = value/1000, larger
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, unit)
}
