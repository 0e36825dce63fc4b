package search

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/forager-rl/forager"
)

// record reads the columns of one row, whatever decoded it: encoding/json and
// Parquet readers give different Go types for the same text or number.
type record struct{ columns map[string]any }

// text is the first of the named columns that holds text or a number.
func (r record) text(names ...string) string {
	for _, name := range names {
		if text, ok := asText(r.columns[name]); ok && text != "" {
			return text
		}
	}
	return ""
}

// texts is a column of text or a list of text; what is neither is left out.
func (r record) texts(name string) []string {
	if text, ok := asText(r.columns[name]); ok {
		return []string{text}
	}
	var texts []string
	for _, value := range asList(r.columns[name]) {
		if text, ok := asText(value); ok {
			texts = append(texts, text)
		}
	}
	return texts
}

func (r record) integer(name string) int {
	n, err := strconv.Atoi(r.text(name))
	if err != nil {
		return 0
	}
	return n
}

func (r record) number(name string) float64 {
	n, err := strconv.ParseFloat(r.text(name), 64)
	if err != nil {
		return 0
	}
	return n
}

// record is a nested record; an absent one is empty.
func (r record) record(name string) record {
	columns, _ := r.columns[name].(map[string]any)
	return record{columns}
}

// answers gathers the gold answers from wherever a form keeps them.
func (r record) answers() ([]string, error) {
	for _, name := range []string{"answers", "golden_answers", "answer"} {
		if r.columns[name] != nil {
			return cleanAnswers(name, r.texts(name))
		}
	}
	for _, name := range []string{"reward_model", "reward_spec"} {
		reward := r.record(name)
		if truth, ok := reward.columns["ground_truth"].(map[string]any); ok {
			return cleanAnswers(name+".ground_truth.target", record{truth}.texts("target"))
		}
		if reward.columns["ground_truth"] != nil {
			return cleanAnswers(name+".ground_truth", reward.texts("ground_truth"))
		}
	}
	return nil, errors.New("no answers: expected one of the columns answers, golden_answers, answer, reward_model or reward_spec")
}

func cleanAnswers(column string, raw []string) ([]string, error) {
	var answers []string
	for _, answer := range raw {
		if answer = strings.TrimSpace(answer); answer != "" {
			answers = append(answers, answer)
		}
	}
	if len(answers) == 0 {
		return nil, fmt.Errorf("no answers: column %s holds no text", column)
	}
	return answers, nil
}

// messages is a column of chat messages; plain text is one user message.
func (r record) messages(name string) ([]forager.Message, error) {
	value := r.columns[name]
	if value == nil {
		return nil, nil
	}
	if text, ok := asText(value); ok {
		return []forager.Message{{Role: "user", Content: text}}, nil
	}
	var messages []forager.Message
	for i, element := range asList(value) {
		columns, ok := element.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s[%d]: expected an object with role and content", name, i)
		}
		message := record{columns}
		role := message.text("role")
		content, ok := asText(columns["content"])
		if role == "" || !ok {
			return nil, fmt.Errorf("%s[%d]: expected an object with role and content", name, i)
		}
		messages = append(messages, forager.Message{Role: role, Content: content})
	}
	return messages, nil
}

// hops is the decomposition: objects with question and answer, bare
// sub-questions (StrategyQA), or evidences as triples (2WikiMultihopQA).
func (r record) hops() ([]forager.Hop, error) {
	var hops []forager.Hop
	for i, element := range asList(r.columns["decomposition"]) {
		if question, ok := asText(element); ok {
			hops = append(hops, forager.Hop{Question: question})
			continue
		}
		columns, ok := element.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("decomposition[%d]: expected an object with question and answer", i)
		}
		hop := record{columns}
		hops = append(hops, forager.Hop{Question: hop.text("question"), Answer: hop.text("answer"), Gold: hop.text("gold"), Query: hop.text("query")})
	}
	if len(hops) > 0 {
		return hops, nil
	}
	for _, element := range asList(r.columns["evidences"]) {
		triple := record{map[string]any{"triple": element}}.texts("triple")
		if len(triple) == 3 {
			hops = append(hops, forager.Hop{Question: triple[0] + ": " + triple[1], Answer: triple[2]})
		}
	}
	return hops, nil
}

// asText reads text and whole or decimal numbers.
func asText(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case []byte:
		return string(v), true
	case json.Number:
		return v.String(), true
	case int:
		return strconv.Itoa(v), true
	case int32:
		return strconv.FormatInt(int64(v), 10), true
	case int64:
		return strconv.FormatInt(v, 10), true
	case uint64:
		return strconv.FormatUint(v, 10), true
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return "", false
		}
		return strconv.FormatFloat(v, 'f', -1, 64), true
	}
	return "", false
}

// asList reads a list of any element type; anything else is an empty list.
func asList(value any) []any {
	switch v := value.(type) {
	case []any:
		return v
	case []string:
		return widen(v)
	case []map[string]any:
		return widen(v)
	case [][]string:
		return widen(v)
	}
	return nil
}

func widen[T any](values []T) []any {
	wide := make([]any, len(values))
	for i, value := range values {
		wide[i] = value
	}
	return wide
}
