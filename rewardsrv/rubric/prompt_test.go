package rubric

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/forager-rl/forager"
)

func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

// item is a step, a pair and a rollout in one, with answers that occur nowhere else.
func item() Item {
	return Item{
		Task: forager.Task{
			ID: "t1", Question: "Which city is the capital of the country where Ana Lund was born?", Answers: []string{"Vostigrad", "City of Vostigrad"},
			Decomposition: []forager.Hop{
				{Question: "Where was Ana Lund born?", Answer: "Zembland"},
				{Question: "What is the capital of Zembland?", Answer: "Vostigrad"},
			},
		},
		Question: "Which city is the capital of the country where Ana Lund was born?",
		Step: Step{
			Query:    "birthplace of Ana Lund",
			Passages: []forager.Passage{{ID: "p1", Title: "Ana Lund", Text: "Ana Lund is a painter of the north."}},
			Earlier:  []string{"who is Ana Lund"},
		},
		Other:  &Step{Query: "painters of the north", Passages: []forager.Passage{{ID: "p2", Title: "Painters", Text: "Many paint."}}},
		Answer: "Oslo",
	}
}

func load(t testing.TB, name string) *Rubric {
	t.Helper()
	r, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// rightAnswer is the last line that gives each question its choice number n, or n points.
func rightAnswer(p Prompt, n int) string {
	given := make([]string, len(p.sheet.questions))
	for i, q := range p.sheet.questions {
		given[i] = strconv.Itoa(min(n, q.max))
		if len(q.choices) > 0 {
			given[i] = q.choices[min(n, len(q.choices)-1)].word
		}
		if len(given) > 1 {
			given[i] = fmt.Sprintf("%d=%s", i+1, given[i])
		}
	}
	return "A reason.\n" + p.sheet.tag + ": " + strings.Join(given, ", ")
}

// rightObject is the same as JSON.
func rightObject(p Prompt, n int) string {
	values := make([]string, len(p.sheet.questions))
	for i, q := range p.sheet.questions {
		values[i] = strconv.Itoa(min(n, q.max))
		if len(q.choices) > 0 {
			values[i] = strconv.Quote(q.choices[min(n, len(q.choices)-1)].word)
		}
	}
	value := values[0]
	if len(values) > 1 {
		for i := range values {
			values[i] = fmt.Sprintf("%q: %s", strconv.Itoa(i+1), values[i])
		}
		value = "{" + strings.Join(values, ", ") + "}"
	}
	return fmt.Sprintf("{\"reason\": \"A reason.\", %q: %s}", p.sheet.tag, value)
}

// split gives what stands before, between and after the fence lines of a user message.
func split(t testing.TB, p Prompt) (head, material, tail string) {
	t.Helper()
	_, rest, ok := strings.Cut(p.System, "two lines that read ")
	fence, _, _ := strings.Cut(rest, ". Strangers")
	parts := strings.Split(p.User, "\n"+fence+"\n")
	if !ok || len(parts) != 3 || strings.Count(p.User, fence) != 2 {
		t.Fatalf("the fence %q splits the message into %d parts:\n%s", fence, len(parts), p.User)
	}
	return parts[0], parts[1], parts[2]
}

// Gold answers are in a prompt when they are meant to be, and not otherwise.
func TestGoldIsShownOnlyOnRequest(t *testing.T) {
	for _, name := range Builtin() {
		for _, structured := range []bool{false, true} {
			for _, gold := range []bool{false, true} {
				p := load(t, name).Prompt(item(), PromptOptions{ShowGold: gold, Structured: structured}, random(1))
				all := p.System + p.User + string(p.Schema)
				if shown := strings.Contains(all, "Vostigrad"); shown != gold {
					t.Errorf("%s: gold shown %v, want %v:\n%s", name, shown, gold, all)
				}
				if !gold && strings.Contains(all, "Zembland") {
					t.Errorf("%s: a hop's answer is shown:\n%s", name, all)
				}
			}
		}
	}
}

func TestEverythingOfARequestIsDrawnAnew(t *testing.T) {
	r, rng := load(t, "helpfulness"), random(3)
	seen := map[string]bool{}
	words, positiveFirst := map[string]int{}, 0
	for range 200 {
		p := r.Prompt(item(), PromptOptions{}, rng)
		if seen[p.Digest] {
			t.Fatal("two requests are equal")
		}
		seen[p.Digest] = true
		words[p.sheet.questions[0].choices[0].word]++
		if p.sheet.questions[0].shown[0] == 0 {
			positiveFirst++
		}
	}
	if positiveFirst < 70 || positiveFirst > 130 {
		t.Errorf("the first label was shown first %d times of 200", positiveFirst)
	}
	if len(words) < 40 {
		t.Errorf("%d different words for one label in 200 requests", len(words))
	}
	if a, b := r.Prompt(item(), PromptOptions{}, random(5)), r.Prompt(item(), PromptOptions{}, random(5)); a.Digest != b.Digest {
		t.Error("the same randomness gives two prompts")
	}
}

// A text that holds every word of the list is judged by words it cannot hold.
func TestWordsNeverOccurInTheMaterial(t *testing.T) {
	it := item()
	it.Passages[0].Text = strings.ToLower(strings.Join(neutralWords(), " "))
	for _, name := range Builtin() {
		p := load(t, name).Prompt(it, PromptOptions{}, random(9))
		_, material, _ := split(t, p)
		for _, q := range p.sheet.questions {
			for _, c := range q.choices {
				if strings.Contains(strings.ToUpper(material), c.word) {
					t.Errorf("%s: the word %s stands in the material", name, c.word)
				}
			}
		}
		if strings.Contains(strings.ToUpper(material), p.sheet.tag) {
			t.Errorf("%s: the tag %s stands in the material", name, p.sheet.tag)
		}
	}
}

// Where each step of a pair stands is drawn; the verdict is about the item.
func TestPairsAreMappedBack(t *testing.T) {
	r := load(t, "preference")
	orders := map[bool]int{}
	for seed := range uint64(100) {
		p := r.Prompt(item(), PromptOptions{}, random(seed))
		_, material, _ := split(t, p)
		own, _, _ := strings.Cut(material, "Step 2\n")
		shownFirst := strings.Contains(own, "birthplace of Ana Lund")
		orders[shownFirst]++
		for i, value := range []float64{1, 0, 0.5} { // first, second, tie as shown
			detail := []string{"first", "second", "tie"}[i]
			if !shownFirst {
				value, detail = 1-value, []string{"second", "first", "tie"}[i]
			}
			v, err := p.Parse(rightAnswer(p, i))
			if err != nil || v.Value != value || v.Details["label"] != detail {
				t.Fatalf("shown first %v, answer %d: %v %v", shownFirst, i, v, err)
			}
		}
	}
	if orders[true] < 30 || orders[false] < 30 {
		t.Errorf("orders %v", orders)
	}
}

func TestMaterialOfEachUnit(t *testing.T) {
	it := item()
	it.Passages[0].Text = strings.Repeat("ü", 3000)
	_, material, _ := split(t, load(t, "helpfulness").Prompt(it, PromptOptions{}, random(1)))
	if strings.Count(material, "ü") != 1500 || strings.Contains(material, "who is Ana Lund") {
		t.Errorf("step:\n%s", material)
	}
	it.Passages, it.Observation = nil, "seen by the policy"
	if _, material, _ = split(t, load(t, "helpfulness").Prompt(it, PromptOptions{}, random(1))); !strings.Contains(material, "Passages: seen by the policy") {
		t.Errorf("observation:\n%s", material)
	}
	it.Observation = ""
	if _, material, _ = split(t, load(t, "helpfulness").Prompt(it, PromptOptions{}, random(1))); !strings.Contains(material, "No passage was returned.") {
		t.Errorf("no passage:\n%s", material)
	}
	if _, material, _ = split(t, load(t, "tool-calls").Prompt(it, PromptOptions{}, random(1))); !strings.Contains(material, "- who is Ana Lund\n") {
		t.Errorf("history:\n%s", material)
	}
	rollout, err := parse("r.yaml", []byte(strings.Replace(valid, "labels:", "unit: rollout\nlabels:", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if _, material, _ = split(t, rollout.Prompt(it, PromptOptions{}, random(1))); !rollout.History() || !strings.Contains(material, "- who is Ana Lund\nLast query: birthplace of Ana Lund\nFinal answer: Oslo") {
		t.Errorf("rollout:\n%s", material)
	}
}

func TestFacts(t *testing.T) {
	long, short := load(t, "nuggets"), load(t, "nuggets-short")
	nuggets := item()
	nuggets.Task.Decomposition = []forager.Hop{{Answer: "Ana Lund was born in Zembland."}, {Answer: "Vostigrad is its capital."}}
	bare := item()
	bare.Task = forager.Task{}
	for _, c := range []struct {
		rubric *Rubric
		item   Item
		gold   bool
		want   string
	}{
		{long, item(), true, "1. Where was Ana Lund born? Answer: Zembland\n2. What is the capital of Zembland? Answer: Vostigrad"},
		{long, item(), false, "1. The answer to: Where was Ana Lund born?\n2. The answer to: What is the capital of [answer]?"},
		{long, nuggets, true, "1. Ana Lund was born in Zembland.\n2. Vostigrad is its capital."},
		{long, nuggets, false, "1. The answer to the question."},
		{long, bare, true, "1. The answer to the question."},
		{short, item(), true, "1. The answer to the question is: Vostigrad, or: City of Vostigrad"},
		{short, item(), false, "1. The answer to the question."},
	} {
		head, _, _ := split(t, c.rubric.Prompt(c.item, PromptOptions{ShowGold: c.gold}, random(1)))
		if _, facts, _ := strings.Cut(head, "Facts:\n"); strings.TrimSpace(facts) != strings.ReplaceAll(c.want, "[answer]", "(answer)") {
			t.Errorf("gold %v: facts\n%s\nwant\n%s", c.gold, facts, c.want)
		}
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"a\nb\r\n\tc\u2028d\x00e":                      "a b c d e",
		"<|im_start|>system":                           "‹|im_start|›system",
		"<|im_\u200bstart|>":                           "‹|im_start|›",
		"[INST] x [/INST] [IN\u2060ST] [1] [a b]":      "(INST) x (/INST) (INST) [1] [a b]",
		"<｜User｜> ＜|eot|＞ </s> <<SYS>>":                "‹｜User｜› ‹|eot|› ‹/s› ‹‹SYS››",
		"\u202eright to left\u202c \xff\xfe\U000e0041": "right to left",
		"می\u200cخواهم":                                "می\u200cخواهم",
		"  ":                                           "",
	} {
		if got := clean(in, 100); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
	if got := clean("äöü", 2); got != "äö …" {
		t.Errorf("cut to %q", got)
	}
}

// A schema is valid JSON that allows the right answer alone, reason first.
func TestSchema(t *testing.T) {
	for _, name := range Builtin() {
		r := load(t, name)
		p := r.Prompt(item(), PromptOptions{Structured: true}, random(4))
		var s struct {
			Properties           map[string]json.RawMessage
			Required             []string
			AdditionalProperties *bool
		}
		if err := json.Unmarshal(p.Schema, &s); err != nil {
			t.Fatal(err)
		}
		if s.AdditionalProperties == nil || *s.AdditionalProperties || len(s.Required) != 2 || s.Required[0] != "reason" || s.Required[1] != p.sheet.tag || len(s.Properties) != 2 {
			t.Errorf("%s: %s", name, p.Schema)
		}
		if strings.Index(string(p.Schema), `"reason"`) > strings.Index(string(p.Schema), p.sheet.tag) {
			t.Errorf("%s: the reason is not first: %s", name, p.Schema)
		}
		if free := r.Prompt(item(), PromptOptions{}, random(4)); free.Schema != nil {
			t.Errorf("%s: free text with a schema", name)
		}
	}
}
