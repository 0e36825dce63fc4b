package rubric

import (
	"errors"
	"maps"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// storedAnswer is one entry of testdata/answers.yaml.
type storedAnswer struct {
	Name      string
	Text      string
	Value     *float64 // nil: unusable
	Details   map[string]string
	Rationale string
}

func TestStoredAnswers(t *testing.T) {
	data, err := os.ReadFile("testdata/answers.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var stored map[string][]storedAnswer
	if err := yaml.Unmarshal(data, &stored); err != nil {
		t.Fatal(err)
	}
	for _, name := range Builtin() {
		if len(stored[name]) == 0 {
			t.Errorf("%s has no stored answers", name)
		}
		for _, answer := range stored[name] {
			for _, structured := range []bool{false, true} {
				p := load(t, name).Prompt(item(), PromptOptions{ShowGold: true, Structured: structured}, random(8))
				v, err := p.Parse(fillIn(p, answer.Text))
				switch {
				case answer.Value == nil:
					if !errors.Is(err, ErrUnusable) {
						t.Errorf("%s, %s: read as %v, %v", name, answer.Name, v, err)
					}
				case err != nil || v.Value != *answer.Value:
					t.Errorf("%s, %s: %v, %v", name, answer.Name, v, err)
				case answer.Details != nil && !maps.Equal(v.Details, answer.Details) || answer.Rationale != "" && v.Rationale != answer.Rationale:
					t.Errorf("%s, %s: details %v, rationale %q", name, answer.Name, v.Details, v.Rationale)
				}
			}
		}
	}
}

// fillIn puts the drawn words in the place of {tag} and {label name}.
func fillIn(p Prompt, text string) string {
	text = strings.ReplaceAll(text, "{tag}", p.sheet.tag)
	for _, q := range p.sheet.questions {
		for _, c := range q.choices {
			text = strings.ReplaceAll(text, "{"+c.Name+"}", c.word)
		}
	}
	return text
}

func TestAnswersOfAnyBytes(t *testing.T) {
	p := load(t, "helpfulness").Prompt(item(), PromptOptions{}, random(1))
	for name, answer := range map[string]string{
		"10 MB":          strings.Repeat("and so on ", 1<<20) + "\n" + rightAnswer(p, 0),
		"10 MB of lines": strings.Repeat("{\n", 5<<20) + rightObject(p, 0),
		"deep JSON":      strings.Repeat(`{"reason":`, 6000) + "}",
	} {
		if _, err := p.Parse(answer); !errors.Is(err, ErrUnusable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, answer := range []string{"\xff\xfebecause\xc0 \x00of\x1b[1m it\n" + p.sheet.tag + ": " + p.sheet.questions[0].choices[0].word, strings.Replace(rightObject(p, 0), "A reason.", "because\xff\xc0 of\u202e it", 1)} {
		v, err := p.Parse(answer)
		if err != nil || v.Value != 1 || !utf8.ValidString(v.Rationale) || strings.ContainsAny(v.Rationale, "\x00\x1b\u202e") {
			t.Errorf("%q: %v %v", answer, v, err)
		}
	}
	if v, err := p.Parse(strings.Repeat("long ", 10_000) + "\n" + p.sheet.tag + ": " + p.sheet.questions[0].choices[0].word); err != nil || len(v.Rationale) > maxReasonBytes+len("…") {
		t.Errorf("rationale of %d bytes, %v", len(v.Rationale), err)
	}
	if _, err := (Prompt{}).Parse("x"); !errors.Is(err, ErrUnusable) {
		t.Error(err)
	}
}

// FuzzParse holds that no answer breaks the parser, and that one without the words drawn for
// the request is never a verdict.
func FuzzParse(f *testing.F) {
	var prompts []Prompt
	for i, name := range Builtin() {
		p := load(f, name).Prompt(item(), PromptOptions{}, random(8))
		prompts = append(prompts, p)
		f.Add(i, rightAnswer(p, 0))
		f.Add(i, rightAnswer(p, 3))
		f.Add(i, "```json\n"+rightObject(p, 1)+"\n```")
	}
	f.Add(0, "\x00\xff</think>{")
	f.Fuzz(func(t *testing.T, i int, answer string) {
		p := prompts[uint(i)%uint(len(prompts))]
		v, err := p.Parse(answer)
		if err != nil {
			if !errors.Is(err, ErrUnusable) {
				t.Fatal(err)
			}
			return
		}
		if !(v.Value >= 0 && v.Value <= 1) || len(v.Details) != len(p.sheet.questions) {
			t.Fatalf("%q read as %v", answer, v)
		}
		if !utf8.ValidString(v.Rationale) || strings.ContainsAny(v.Rationale, "\r\n") {
			t.Fatalf("rationale %q", v.Rationale)
		}
		if !strings.Contains(answer, p.sheet.tag) && !strings.Contains(answer, `\u`) {
			t.Fatalf("%q has no tag and is read as %v", answer, v)
		}
	})
}
