package node

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Level is how bad a finding is.
type Level string

// The levels.
const (
	LevelWrong Level = "wrong" // the run stands still, is about to, or loses something
	LevelNote  Level = "note"  // worth knowing
)

// Finding is something about a run that a person should know, and what to do
// about it.
type Finding struct {
	Rule  string `json:"rule"`
	Level Level  `json:"level"`
	Says  string `json:"says"`
	Do    string `json:"do"`
}

// rule finds one kind of thing that may be wrong with a run.
type rule struct {
	name  string
	level Level
	says  string // in which {words} are filled in, in order
	do    string
	// check gives what to fill in for each time that the rule holds.
	check func(*Status) []filling
}

// filling is what stands in place of the {words} of a rule.
type filling []any

// once is a rule that holds one time or not at all.
func once(holds bool, words ...any) []filling {
	if !holds {
		return nil
	}
	return []filling{words}
}

// says fills in the words.
func (f filling) says(text string) string {
	for _, word := range f {
		before, rest, _ := strings.Cut(text, "{")
		_, after, _ := strings.Cut(rest, "}")
		text = before + strings.NewReplacer("{", "(", "}", ")").Replace(fmt.Sprint(word)) + after
	}
	return text
}

// judge finds what is wrong.
func (s *Status) judge() {
	s.Findings = []Finding{}
	for _, level := range []Level{LevelWrong, LevelNote} {
		for _, r := range rules() {
			if r.level != level {
				continue
			}
			for _, f := range r.check(s) {
				s.Findings = append(s.Findings, Finding{r.name, r.level, f.says(r.says), r.do})
			}
		}
	}
	s.Healthy = s.Wrong() == 0
}

// listed says whether it is known who is there.
func (s *Status) listed() bool { return s.Errors[askedMembers] == "" && s.Errors[askedBus] == "" }

// value is what a pointer points at, or the zero value.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// waits lists the roles that have waited for long for one of some things.
func (s *Status) waits(long time.Duration, things ...string) []filling {
	var list []filling
	for _, m := range s.Members {
		for _, w := range m.Waits {
			if w.Seconds >= long.Seconds() && slices.Contains(things, w.What) {
				list = append(list, filling{w.Role, m.Name, Elapsed(w.Seconds), w.What})
			}
		}
	}
	return list
}

// behind lists the actors that do not take newer weights. One that has just taken
// some is not stuck, however far behind a fast learner leaves it; nor is one that
// has played its version for long when the next was published only now.
func behind(s *Status) []filling {
	var list []filling
	for _, a := range s.Actors {
		old := s.Weights != nil && s.Weights.AgeSeconds > stuckPolicy.Seconds()
		if a.Behind > 0 && a.Seconds > stuckPolicy.Seconds() && (old || a.Behind > bearable) {
			list = append(list, filling{a.Name, a.Policy, s.Weights.Version})
		}
	}
	return list
}

// voteless lists the nodes that run and have no vote: they wait to be added, or were
// removed. Without a leader nobody knows who votes.
func voteless(s *Status) []filling {
	var list []filling
	for _, m := range s.Members {
		if v := m.Raft; v != nil && s.Raft.Leader != "" && !slices.ContainsFunc(s.Raft.Voters, func(voter Voter) bool { return voter.Node == v.Node }) {
			list = append(list, filling{v.Node})
		}
	}
	return list
}

// Elapsed writes seconds as people say them: 3s, 4m, 2h05m, 3d.
func Elapsed(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}
