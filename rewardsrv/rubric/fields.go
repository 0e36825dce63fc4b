package rubric

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"
	"go.yaml.in/yaml/v3"
)

// Bounds on what a rubric may ask in one request.
const (
	maxLabels      = 8
	maxAspects     = 4
	maxPrinciples  = 20
	maxPoints      = 100
	maxAuthorBytes = 16 << 10
)

// field is one key of a YAML mapping.
type field struct {
	name     string
	optional bool
	expects  string // what stands there, for errors
}

// topFields are the fields of a rubric of one kind; an unknown kind has none.
func topFields(kind string) []field {
	fields := []field{
		{name: "name", expects: "letters, digits, - and _"},
		{name: "kind", expects: "one of " + strings.Join(kinds(), ", ")},
		{name: "instructions", expects: "the text that tells the judge what to decide"},
	}
	unit := field{name: "unit", optional: true, expects: "turn or rollout"}
	history := field{name: "history", optional: true, expects: "true or false"}
	labels := field{name: "labels", expects: "a list of entries with name, value and when"}
	switch kind {
	case Helpfulness:
		return append(fields, unit, history, labels)
	case Preference:
		labels.expects = "a list of the entries first, second and tie, each with name and when"
		return append(fields, labels)
	case Nuggets:
		return append(fields, unit, history, labels, field{name: "facts", expects: "answer (the accepted answer is the one fact) or hops (each hop of the task is one)"})
	case Principles:
		return append(fields, unit, history, field{name: "principles", expects: "a list of entries with name, max, ask and, if wanted, weight"})
	case ToolCalls:
		return append(fields, field{name: "aspects", expects: "a list of entries with name and labels"})
	}
	return nil
}

func kinds() []string { return []string{Helpfulness, Preference, Nuggets, Principles, ToolCalls} }

// parser walks the YAML nodes of one file and collects its mistakes.
type parser struct {
	source   string
	problems []error
}

func (p *parser) fail(at *yaml.Node, format string, args ...any) {
	p.problems = append(p.problems, fmt.Errorf("%s:%d: %s", p.source, max(1, at.Line), fmt.Sprintf(format, args...)))
}

// content reads the whole file.
func (p *parser) content(root *yaml.Node) content {
	c := content{Unit: Turn}
	if root.Kind != yaml.MappingNode {
		p.fail(root, "expected a rubric: the fields name, kind, instructions and those of the kind")
		return c
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value != "kind" {
			continue
		}
		if kind := root.Content[i+1]; slices.Contains(kinds(), kind.Value) {
			c.Kind = kind.Value
		} else {
			p.fail(kind, "unknown kind %q; expected one of %s; the nearest is %s", kind.Value, strings.Join(kinds(), ", "), nearest(kind.Value, kinds()))
			return c
		}
		break
	}
	if c.Kind == "" {
		p.fail(root, `field "kind" is missing: one of %s`, strings.Join(kinds(), ", "))
		return c
	}

	f := p.mapping(root, "a "+c.Kind+" rubric", topFields(c.Kind))
	if c.Name = p.text(f["name"]); c.Name != "" && !rubricName.MatchString(c.Name) {
		p.fail(f["name"], "name %q: expected at most 64 letters, digits, - and _", c.Name)
	}
	c.Instructions = p.text(f["instructions"])
	c.Unit = Unit(p.oneOf(f["unit"], string(Turn), string(Turn), string(Rollout)))
	c.History = p.oneOf(f["history"], "false", "true", "false") == "true"
	c.Facts = p.oneOf(f["facts"], "", factsAnswer, factsHops)
	switch c.Kind {
	case Preference:
		c.Unit = Pair
		c.Labels = p.preferences(f["labels"])
	case ToolCalls:
		c.History = true
		c.Aspects = p.aspects(f["aspects"])
	case Principles:
		c.Principles = p.principles(f["principles"])
	default:
		c.Labels = p.labels(f["labels"])
	}
	c.History = c.History || c.Unit == Rollout
	return c
}

var rubricName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// mapping gives the values of a mapping by key and fails keys that are
// repeated, unknown or missing. An absent value is nil.
func (p *parser) mapping(n *yaml.Node, what string, fields []field) map[string]*yaml.Node {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	values, lines := map[string]*yaml.Node{}, map[string]int{}
	if n.Kind != yaml.MappingNode {
		p.fail(n, "expected %s: the fields %s", what, strings.Join(names, ", "))
		return values
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case lines[key.Value] != 0:
			p.fail(key, "field %q stands on line %d already", key.Value, lines[key.Value])
		case !slices.Contains(names, key.Value):
			p.fail(key, "unknown field %q of %s; expected %s; the nearest is %s", key.Value, what, strings.Join(names, ", "), nearest(key.Value, names))
		default:
			values[key.Value] = n.Content[i+1]
			lines[key.Value] = key.Line
		}
	}
	for _, f := range fields {
		if values[f.name] == nil && !f.optional {
			p.fail(n, "field %q of %s is missing: %s", f.name, what, f.expects)
		}
	}
	return values
}

// entries gives the mappings of a list that has between least and most.
func (p *parser) entries(n *yaml.Node, what string, least, most int, fields []field) []map[string]*yaml.Node {
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode || len(n.Content) < least || len(n.Content) > most {
		count := fmt.Sprintf("%d to %d", least, most)
		if least == most {
			count = strconv.Itoa(most)
		}
		p.fail(n, "expected a list of %s entries, each %s", count, what)
		return nil
	}
	list := make([]map[string]*yaml.Node, len(n.Content))
	for i, entry := range n.Content {
		list[i] = p.mapping(entry, what, fields)
	}
	p.distinct(list, what)
	return list
}

// distinct fails entries whose name another one has.
func (p *parser) distinct(list []map[string]*yaml.Node, what string) {
	lines := map[string]int{}
	for _, entry := range list {
		n := entry["name"]
		if n == nil {
			continue
		}
		name := strings.ToLower(strings.TrimSpace(n.Value))
		if line := lines[name]; line != 0 {
			p.fail(n, "duplicate name %q: %s on line %d has it already; expected a name of its own for each", n.Value, what, line)
			continue
		}
		lines[name] = n.Line
	}
}

func (p *parser) labels(n *yaml.Node) []label {
	fields := []field{
		{name: "name", expects: "a short name"},
		{name: "value", expects: "a number from 0 to 1, the reward of this label"},
		{name: "when", expects: "the condition under which the judge chooses it"},
	}
	var labels []label
	values := map[float64]bool{}
	for _, f := range p.entries(n, "a label", 2, maxLabels, fields) {
		l := label{Name: p.short(f["name"]), Value: p.number(f["value"], 0, 1), When: p.text(f["when"])}
		labels = append(labels, l)
		values[l.Value] = true
	}
	if len(labels) > 0 && len(values) == 1 && len(p.problems) == 0 {
		p.fail(n, "all labels have the same value; expected at least two values")
	}
	return labels
}

// preferences reads the three outcomes of a comparison, whose values are fixed.
func (p *parser) preferences(n *yaml.Node) []label {
	fields := []field{
		{name: "name", expects: "first, second or tie"},
		{name: "when", expects: "the condition under which the judge chooses it"},
	}
	outcomes := map[string]label{firstBetter: {firstBetter, 1, ""}, secondBetter: {secondBetter, 0, ""}, tie: {tie, 0.5, ""}}
	var labels []label
	for _, f := range p.entries(n, "a label", len(outcomes), len(outcomes), fields) {
		l := outcomes[p.oneOf(f["name"], "", slices.Sorted(maps.Keys(outcomes))...)]
		l.When = p.text(f["when"])
		labels = append(labels, l)
	}
	return labels
}

func (p *parser) aspects(n *yaml.Node) []aspect {
	fields := []field{
		{name: "name", expects: "a short name"},
		{name: "labels", expects: "a list of entries with name, value and when"},
	}
	var aspects []aspect
	for _, f := range p.entries(n, "an aspect", 1, maxAspects, fields) {
		aspects = append(aspects, aspect{Name: p.short(f["name"]), Labels: p.labels(f["labels"])})
	}
	return aspects
}

func (p *parser) principles(n *yaml.Node) []principle {
	fields := []field{
		{name: "name", expects: "a short name"},
		{name: "max", expects: "the most points, a whole number from 1 to " + strconv.Itoa(maxPoints)},
		{name: "weight", optional: true, expects: "a number above 0; 1 when absent"},
		{name: "ask", expects: "what the points are given for"},
	}
	var principles []principle
	for _, f := range p.entries(n, "a principle", 1, maxPrinciples, fields) {
		x := principle{Name: p.short(f["name"]), Weight: 1, Ask: p.text(f["ask"])}
		most := p.number(f["max"], 1, maxPoints)
		if x.Max = int(most); float64(x.Max) != most {
			p.fail(f["max"], "expected a whole number")
		}
		if w := f["weight"]; w != nil {
			x.Weight = p.number(w, 0, 1e6)
			if x.Weight == 0 {
				p.fail(w, "expected a weight above 0")
			}
		}
		principles = append(principles, x)
	}
	return principles
}

// text reads a text that is not blank. Of an absent value it is "", which
// mapping has failed where it matters.
func (p *parser) text(n *yaml.Node) string {
	if n == nil {
		return ""
	}
	s := strings.TrimSpace(n.Value)
	switch {
	case n.Kind != yaml.ScalarNode || n.Tag == "!!null" || s == "":
		p.fail(n, "expected a text that is not empty")
	case len(s) > maxAuthorBytes:
		p.fail(n, "text of %d bytes; expected at most %d", len(s), maxAuthorBytes)
	}
	return s
}

// short reads a name that labels and metrics can carry.
func (p *parser) short(n *yaml.Node) string {
	s := p.text(n)
	if len(s) > 64 || s != oneLine(s) {
		p.fail(n, "name %.64q: expected one line of at most 64 bytes", s)
	}
	return s
}

// oneOf reads one of a few words; absent gives the default.
func (p *parser) oneOf(n *yaml.Node, absent string, allowed ...string) string {
	if n == nil {
		return absent
	}
	if n.Kind != yaml.ScalarNode || !slices.Contains(allowed, n.Value) {
		p.fail(n, "%q is not allowed here; expected %s", n.Value, strings.Join(allowed, " or "))
		return absent
	}
	return n.Value
}

// number reads a number in [least, most].
func (p *parser) number(n *yaml.Node, least, most float64) float64 {
	if n == nil {
		return least
	}
	x, err := strconv.ParseFloat(n.Value, 64)
	if n.Kind != yaml.ScalarNode || err != nil || math.IsNaN(x) || x < least || x > most {
		p.fail(n, "%q is no number from %g to %g", n.Value, least, most)
		return least
	}
	return x
}

// nearest is the candidate that takes the fewest edits to reach.
func nearest(name string, candidates []string) string {
	return slices.MinFunc(candidates, func(a, b string) int {
		return levenshtein.ComputeDistance(name, a) - levenshtein.ComputeDistance(name, b)
	})
}
