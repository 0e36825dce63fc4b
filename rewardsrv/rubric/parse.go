package rubric

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// maxAnswerBytes is the largest answer that is looked at: a verdict is short,
// and a judge that writes more has lost its thread.
const maxAnswerBytes = 64 << 10

// maxReasonBytes bounds the rationale before it is redacted and shortened.
const maxReasonBytes = 2000

// reasonKey is the rationale's key in JSON answers.
const reasonKey = "reason"

// Parse reads the answer to this prompt. It is strict: the last line that is
// not blank is exactly the line asked for, or the answer is exactly the JSON
// object asked for, be it inside a Markdown fence. Every other answer is an
// error that wraps ErrUnusable. Reasoning up to a last </think> is ignored.
func (p Prompt) Parse(answer string) (Verdict, error) {
	if len(answer) > maxAnswerBytes {
		return Verdict{}, fmt.Errorf("answer of %d bytes, more than %d: %w", len(answer), maxAnswerBytes, ErrUnusable)
	}
	if len(p.sheet.questions) == 0 {
		return Verdict{}, fmt.Errorf("a prompt that no rubric wrote: %w", ErrUnusable)
	}
	var reason string
	var given []string
	var err error
	lines := answerLines(answer)
	if object, ok := jsonObject(lines); ok {
		reason, given, err = p.sheet.readObject(object)
	} else {
		reason, given, err = p.sheet.readLine(lines)
	}
	if err != nil {
		return Verdict{}, fmt.Errorf("%w: %w", err, ErrUnusable)
	}
	v, err := p.sheet.verdict(given)
	if err != nil {
		return Verdict{}, fmt.Errorf("%w: %w", err, ErrUnusable)
	}
	v.Rationale = shorten(oneLine(reason), maxReasonBytes)
	return v, nil
}

// emphasis is what judges put around words though nobody asked them to.
const emphasis = " \t*`\"'"

// answerLines are the lines of an answer that are not blank, without the
// reasoning of a thinking model.
func answerLines(answer string) []string {
	const thought = "</think>"
	if i := strings.LastIndex(answer, thought); i >= 0 {
		answer = answer[i+len(thought):]
	}
	var lines []string
	for line := range strings.Lines(answer) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// jsonObject finds the JSON object that an answer ends with: all of it, the last
// Markdown block, or the last line.
func jsonObject(lines []string) (string, bool) {
	const fence = "```"
	if n := len(lines); n > 0 && lines[n-1] == fence {
		lines = lines[:n-1]
	}
	if len(lines) == 0 || !strings.HasSuffix(lines[len(lines)-1], "}") {
		return "", false
	}
	start := 0
	for i, line := range lines {
		if strings.HasPrefix(line, fence) {
			start = i + 1
		}
	}
	text := strings.Join(lines[start:], "\n")
	if last := lines[len(lines)-1]; !strings.HasPrefix(text, "{") {
		text = last
	}
	return text, strings.HasPrefix(text, "{")
}

// readLine reads the last line, "MAPLE: AMBER" or "MAPLE: 1=AMBER, 2=FLINT", and
// takes the line before it as the reason.
func (s sheet) readLine(lines []string) (reason string, given []string, err error) {
	for len(lines) > 0 && strings.HasPrefix(lines[len(lines)-1], "```") {
		lines = lines[:len(lines)-1]
	}
	if len(lines) == 0 {
		return "", nil, errors.New("empty answer")
	}
	if len(lines) > 1 {
		reason = lines[len(lines)-2]
	}
	tag, rest, ok := strings.Cut(lines[len(lines)-1], ":")
	if !ok || strings.Trim(tag, emphasis) != s.tag {
		return "", nil, errors.New("last line is not the line asked for")
	}
	rest = strings.Trim(strings.TrimSuffix(strings.Trim(rest, emphasis), "."), emphasis)
	parts := strings.Split(rest, ",")
	if len(parts) != len(s.questions) {
		return "", nil, fmt.Errorf("%d decisions instead of %d", len(parts), len(s.questions))
	}
	for i, part := range parts {
		number, word, numbered := strings.Cut(part, "=")
		switch {
		case !numbered && len(parts) == 1:
			word = part
		case !numbered || strings.TrimSpace(number) != strconv.Itoa(i+1):
			return "", nil, fmt.Errorf("decision %d is not numbered so", i+1)
		}
		given = append(given, strings.Trim(word, emphasis))
	}
	return reason, given, nil
}

// readObject reads the JSON object: the reason and the tag's value once each,
// and nothing else.
func (s sheet) readObject(text string) (reason string, given []string, err error) {
	values, err := readFields(text, reasonKey, s.tag)
	if err != nil {
		return "", nil, err
	}
	if err := json.Unmarshal(values[0], &reason); err != nil {
		return "", nil, errors.New("the reason is no string")
	}
	decisions := values[1:]
	if len(s.questions) > 1 {
		keys := make([]string, len(s.questions))
		for i := range keys {
			keys[i] = strconv.Itoa(i + 1)
		}
		if decisions, err = readFields(string(values[1]), keys...); err != nil {
			return "", nil, err
		}
	}
	for i, raw := range decisions {
		word := string(raw)
		if len(s.questions[i].choices) > 0 {
			if err := json.Unmarshal(raw, &word); err != nil {
				return "", nil, fmt.Errorf("decision %d is no string", i+1)
			}
		}
		given = append(given, word)
	}
	return reason, given, nil
}

// readFields reads one JSON object that has exactly these keys, each once, in
// any order. encoding/json would let the last of two equal keys win.
func readFields(text string, keys ...string) ([]json.RawMessage, error) {
	dec := json.NewDecoder(strings.NewReader(text))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return nil, errors.New("no JSON object")
	}
	values := make([]json.RawMessage, len(keys))
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, errors.New("broken JSON")
		}
		at := -1
		for i, k := range keys {
			if token == k && values[i] == nil {
				at = i
			}
		}
		if at < 0 {
			return nil, errors.New("JSON object with an unknown or repeated key")
		}
		if err := dec.Decode(&values[at]); err != nil {
			return nil, errors.New("broken JSON")
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, errors.New("JSON object without an end")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("text after the JSON object")
	}
	for i, v := range values {
		if v == nil {
			return nil, fmt.Errorf("JSON object lacks its key %d of %d", i+1, len(keys))
		}
	}
	return values, nil
}

// verdict turns what was given for each question into values. Words and points
// count only when they are exactly among those asked for.
func (s sheet) verdict(given []string) (Verdict, error) {
	v := Verdict{Details: make(map[string]string, len(given))}
	product, sum, weights := 1.0, 0.0, 0.0
	for i, q := range s.questions {
		value, detail, err := q.read(given[i])
		if err != nil {
			return Verdict{}, fmt.Errorf("decision %d: %w", i+1, err)
		}
		if s.swapped {
			value, detail = 1-value, mirrored(detail)
		}
		v.Details[q.name] = detail
		product *= value
		sum += q.weight * value
		weights += q.weight
	}
	v.Value = sum / weights
	if s.product {
		v.Value = product
	}
	return v, nil
}

func (q question) read(given string) (value float64, detail string, err error) {
	for _, c := range q.choices {
		if given == c.word {
			return c.Value, c.Name, nil
		}
	}
	if len(q.choices) > 0 {
		return 0, "", errors.New("not one of the words asked for")
	}
	outOf := "/" + strconv.Itoa(q.max)
	given = strings.TrimSuffix(given, outOf)
	points, err := strconv.Atoi(given)
	if err != nil || points < 0 || points > q.max || given != strconv.Itoa(points) {
		return 0, "", fmt.Errorf("not a whole number from 0 to %d", q.max)
	}
	return float64(points) / float64(q.max), given + outOf, nil
}

// Labels of a preference.
const (
	firstBetter  = "first"
	secondBetter = "second"
	tie          = "tie"
)

// mirrored is a preference seen from the other step.
func mirrored(preference string) string {
	switch preference {
	case firstBetter:
		return secondBetter
	case secondBetter:
		return firstBetter
	}
	return preference
}
