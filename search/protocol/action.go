package protocol

import (
	"regexp"
	"strings"

	"github.com/forager-rl/forager"
)

// Action is what the policy did in one turn.
type Action struct {
	Kind forager.TurnKind
	Text string // the query, the answer, or the whole stripped text when invalid
}

const (
	endSearch = "</search>"
	endAnswer = "</answer>"
)

// complete matches an action tag with its content. Search-R1's expression has
// a back-reference; spelled out, leftmost-first matching does the same.
var complete = regexp.MustCompile(`(?s)<search>(.*?)</search>|<answer>(.*?)</answer>`)

// ParseAction reads the first complete action tag of a turn; what follows it
// is ignored. Content is stripped of white space and may be empty.
func ParseAction(text string) Action {
	match := complete.FindStringSubmatchIndex(text)
	switch {
	case match == nil:
		return Action{Kind: forager.TurnInvalid, Text: strings.TrimSpace(text)}
	case match[2] >= 0:
		return Action{Kind: forager.TurnSearch, Text: strings.TrimSpace(text[match[2]:match[3]])}
	default:
		return Action{Kind: forager.TurnAnswer, Text: strings.TrimSpace(text[match[4]:match[5]])}
	}
}

// StopStrings end a turn's generation. The stop string is kept in the text.
func StopStrings() []string { return []string{endSearch, endAnswer} }

// InvalidObservation is what the environment says to a turn without a complete
// action tag. The turn counts, the episode goes on.
func InvalidObservation() string {
	return "\nThat turn held no action. Put a query between <search> and </search> to look something up, " +
		"or put the final answer between <answer> and </answer>.\n"
}

// NormalizeQuestion strips white space and ends the question with a question
// mark.
func NormalizeQuestion(question string) string {
	question = strings.TrimSpace(question)
	if !strings.HasSuffix(question, "?") {
		question += "?"
	}
	return question
}
