package reward

import (
	"slices"
	"strings"
)

// ExactMatch is 1 when the normalised answer equals any normalised gold answer,
// else 0. An empty answer scores 0.
//
// A gold answer of which normalising leaves nothing ("A", "!!!") is compared
// lower-cased and trimmed instead; otherwise "the" would match it.
func ExactMatch(answer string, golds []string) float64 {
	if slices.ContainsFunc(golds, func(gold string) bool { return exact(answer, gold) }) {
		return 1
	}
	return 0
}

func exact(answer, gold string) bool {
	g := Normalize(gold)
	if g == "" {
		a := plain(answer)
		return a != "" && a == plain(gold)
	}
	return Normalize(answer) == g
}

func plain(s string) string { return strings.ToLower(strings.TrimSpace(s)) }

// SubEM is 1 when any normalised gold answer is a substring of the normalised
// answer, else 0. As in the field, the substring need not end at a word: "no"
// is found in "nothing". It is a diagnostic; do not train on it, since a long
// answer that lists every candidate scores 1.
func SubEM(answer string, golds []string) float64 {
	a := Normalize(answer)
	for _, gold := range golds {
		if g := Normalize(gold); g != "" && strings.Contains(a, g) || exact(answer, gold) {
			return 1
		}
	}
	return 0
}

// F1 is the harmonic mean of token precision and recall between the normalised
// answer and a gold answer, tokens counted with multiplicity; the best over all
// gold answers, in [0, 1].
//
// HotpotQA's rule applies: when either side is exactly "yes", "no" or
// "noanswer" and the two differ, F1 is 0, because partial credit for such an answer means
// nothing.
func F1(answer string, golds []string) float64 {
	best := 0.0
	a := tokens(answer)
	for _, gold := range golds {
		best = max(best, f1(a, tokens(gold)))
		if exact(answer, gold) {
			best = 1
		}
	}
	return best
}

func f1(answer, gold []string) float64 {
	if isVerdict(answer) != isVerdict(gold) || isVerdict(answer) && answer[0] != gold[0] {
		return 0
	}
	left := make(map[string]int, len(gold))
	for _, t := range gold {
		left[t]++
	}
	common := 0
	for _, t := range answer {
		if left[t] > 0 {
			left[t]--
			common++
		}
	}
	if common == 0 {
		return 0
	}
	precision := float64(common) / float64(len(answer))
	recall := float64(common) / float64(len(gold))
	return 2 * precision * recall / (precision + recall)
}

// isVerdict says whether the tokens are one of HotpotQA's closed answers.
func isVerdict(tokens []string) bool {
	return len(tokens) == 1 && (tokens[0] == "yes" || tokens[0] == "no" || tokens[0] == "noanswer")
}

const (
	answerOpen  = "<answer>"
	answerClose = "</answer>"
)

// LastAnswer extracts the trimmed content of the last complete answer tag of a
// response, and counts the opening tags. ok is false when there is none.
//
// Pass the policy's own text only. Search-R1 scores prompt and response
// together and therefore wants two matches; verl and SkyRL score the response,
// as we do.
func LastAnswer(response string) (answer string, tags int, ok bool) {
	tags = strings.Count(response, answerOpen)
	for rest := response; ; {
		_, after, found := strings.Cut(rest, answerOpen)
		if !found {
			return answer, tags, ok
		}
		content, next, closed := strings.Cut(after, answerClose)
		if !closed {
			return answer, tags, ok
		}
		answer, ok, rest = strings.TrimSpace(content), true, next
	}
}
