package rubric

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// sheet is the form of one answer: what is decided, and the words drawn for it.
type sheet struct {
	tag       string // starts the answer's last line, and is its key in JSON
	questions []question
	// shared says that all questions have the same choices: a list of facts.
	shared bool
	// product multiplies the values of the questions; otherwise the value is
	// their weighted mean.
	product bool
	swapped bool // of a pair: the step shown first is the other one
}

// question is one decision: one of choices or, where there are none, whole
// points from 0 to max.
type question struct {
	name    string // its key in Verdict.Details
	ask     string
	choices []choice // in the order of the rubric
	shown   []int    // their order in the request: judges favour places in a list
	max     int
	weight  float64
}

// choice is a label and the word that stands for it in one request.
type choice struct {
	label
	word string
}

// newSheet makes the form for an item; its words and orders are yet to be drawn.
func (r *Rubric) newSheet(facts int, swapped bool) sheet {
	c := r.content
	s := sheet{swapped: swapped}
	switch c.Kind {
	case Nuggets:
		s.shared = true
		for i := range facts {
			s.questions = append(s.questions, question{name: "fact " + strconv.Itoa(i+1), choices: choices(c.Labels), weight: 1})
		}
	case Principles:
		for _, p := range c.Principles {
			s.questions = append(s.questions, question{name: p.Name, ask: p.Ask, max: p.Max, weight: p.Weight})
		}
	case ToolCalls:
		s.product = true
		for _, a := range c.Aspects {
			s.questions = append(s.questions, question{name: a.Name, choices: choices(a.Labels), weight: 1})
		}
	default:
		s.questions = []question{{name: "label", choices: choices(c.Labels), weight: 1}}
	}
	return s
}

func choices(labels []label) []choice {
	list := make([]choice, len(labels))
	for i, l := range labels {
		list[i].label = l
	}
	return list
}

// size is the number of words that the sheet needs.
func (s sheet) size() int {
	n := 1
	for i, q := range s.questions {
		if i == 0 || !s.shared {
			n += len(q.choices)
		}
	}
	return n
}

// draw gives the sheet its words, none of which occurs in text, and its orders.
func (s *sheet) draw(rng *rand.Rand, text string) {
	words := drawWords(rng, s.size(), text)
	s.tag, words = words[0], words[1:]
	for i := range s.questions {
		q := &s.questions[i]
		if s.shared && i > 0 {
			q.choices, q.shown = s.questions[0].choices, s.questions[0].shown
			continue
		}
		for c := range q.choices {
			q.choices[c].word, words = words[0], words[1:]
		}
		q.shown = rng.Perm(len(q.choices))
	}
}

// text is all that the author wrote about the questions.
func (s sheet) text() string {
	var b strings.Builder
	for _, q := range s.questions {
		b.WriteString(q.name + "\n" + q.ask + "\n")
		for _, c := range q.choices {
			b.WriteString(c.When + "\n")
		}
	}
	return b.String()
}

// How answers are asked for; part of every version.
const (
	askOne    = "Choose one of these words:\n"
	askFacts  = "Judge each numbered fact by itself, by one of these words:\n"
	askEach   = "Decide each of these by one of its words:\n"
	askPoints = "Give each of these a whole number of points:\n"

	formLine = "Write one short sentence that gives your reason without quoting the answer to the question. " +
		"Then write one last line, and nothing after it, in this form, with %s:\n%s"
	formObject = "Answer with one JSON object and nothing else, in this form, with %s and, as the reason, one short sentence that does not quote the answer to the question:\n%s"

	remindLine   = "Your sentence, then the last line, %s:"
	remindObject = "Your JSON object:"
)

// instructions are the part of the system message about the answer.
func (s sheet) instructions(structured bool) string {
	var b strings.Builder
	filling := "the word that you chose in the place of _"
	if len(s.questions) > 1 {
		filling = "the words that you chose in the places of _"
	}
	switch first := s.questions[0]; {
	case len(first.choices) == 0:
		b.WriteString(askPoints)
		for i, q := range s.questions {
			fmt.Fprintf(&b, "%d. %s, from 0 to %d: %s\n", i+1, q.name, q.max, q.ask)
		}
		filling = "the points in the places of _"
	case s.shared:
		b.WriteString(askFacts)
		first.write(&b)
	case len(s.questions) > 1:
		b.WriteString(askEach)
		for i, q := range s.questions {
			fmt.Fprintf(&b, "%d. %s\n", i+1, q.name)
			q.write(&b)
		}
	default:
		b.WriteString(askOne)
		first.write(&b)
	}
	b.WriteString("\n")
	if structured {
		fmt.Fprintf(&b, formObject, filling, s.object())
	} else {
		fmt.Fprintf(&b, formLine, filling, s.line())
	}
	return b.String()
}

// words are those of its choices, as shown.
func (q question) words() []string {
	words := make([]string, len(q.shown))
	for at, i := range q.shown {
		words[at] = q.choices[i].word
	}
	return words
}

func (q question) write(b *strings.Builder) {
	for _, i := range q.shown {
		fmt.Fprintf(b, "- %s when %s\n", q.choices[i].word, q.choices[i].When)
	}
}

// line is the last line with blanks: "MAPLE: _" or "MAPLE: 1=_, 2=_".
func (s sheet) line() string {
	if len(s.questions) == 1 {
		return s.tag + ": _"
	}
	blanks := make([]string, len(s.questions))
	for i := range blanks {
		blanks[i] = strconv.Itoa(i+1) + "=_"
	}
	return s.tag + ": " + strings.Join(blanks, ", ")
}

// object is the JSON form with blanks.
func (s sheet) object() string {
	value := "_"
	if len(s.questions[0].choices) > 0 {
		value = `"_"`
	}
	if len(s.questions) > 1 {
		blanks := make([]string, len(s.questions))
		for i := range blanks {
			blanks[i] = fmt.Sprintf(`"%d": %s`, i+1, value)
		}
		value = "{" + strings.Join(blanks, ", ") + "}"
	}
	return fmt.Sprintf(`{"reason": "_", "%s": %s}`, s.tag, value)
}

// reminder ends the user message. It spells the last line out: small judges
// have forgotten the form by then.
func (s sheet) reminder(structured bool) string {
	if structured {
		return remindObject
	}
	form := s.line()
	switch first := s.questions[0]; {
	case len(s.questions) == 1 && len(first.choices) > 0:
		form = s.tag + ": " + strings.Join(first.words(), " or "+s.tag+": ")
	case s.shared:
		form += " with " + strings.Join(first.words(), " or ") + " in the places of _"
	}
	return fmt.Sprintf(remindLine, form)
}

// schema is the JSON schema of the answer, in the subset that servers with
// structured output agree on. Its properties are in the order in which a judge
// ought to write them, the reason first: such servers keep it.
func (s sheet) schema() json.RawMessage {
	values := make([]string, len(s.questions))
	for i, q := range s.questions {
		values[i] = q.schema()
	}
	value := values[0]
	if len(values) > 1 {
		keys := make([]string, len(values))
		for i := range values {
			keys[i] = strconv.Itoa(i + 1)
		}
		value = objectSchema(keys, values)
	}
	return json.RawMessage(objectSchema([]string{reasonKey, s.tag}, []string{`{"type":"string"}`, value}))
}

func (q question) schema() string {
	if len(q.choices) > 0 {
		return `{"type":"string","enum":["` + strings.Join(q.words(), `","`) + `"]}`
	}
	allowed := make([]string, q.max+1)
	for n := range allowed {
		allowed[n] = strconv.Itoa(n)
	}
	return `{"type":"integer","enum":[` + strings.Join(allowed, ",") + `]}`
}

// objectSchema is an object with exactly these properties. Keys are plain words.
func objectSchema(keys, values []string) string {
	properties, required := make([]string, len(keys)), make([]string, len(keys))
	for i, k := range keys {
		required[i] = strconv.Quote(k)
		properties[i] = required[i] + ":" + values[i]
	}
	return `{"type":"object","properties":{` + strings.Join(properties, ",") +
		`},"required":[` + strings.Join(required, ",") + `],"additionalProperties":false}`
}
