package rubric

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/forager-rl/forager/rewardsrv/rubric/attack"
)

// planted are items with the attack in each place that a stranger can write to.
func planted(text string) map[string]Item {
	items := map[string]Item{}
	plant := func(where string, put func(*Item)) {
		it := item()
		it.Passages = append(it.Passages[:0:0], it.Passages...)
		it.Other = &Step{Query: it.Other.Query, Passages: append(it.Other.Passages[:0:0], it.Other.Passages...)}
		put(&it)
		items[where] = it
	}
	plant("query", func(it *Item) { it.Query = text })
	plant("title", func(it *Item) { it.Passages[0].Title = text })
	plant("text", func(it *Item) { it.Passages[0].Text = text })
	plant("observation", func(it *Item) { it.Passages, it.Observation = nil, text })
	plant("earlier", func(it *Item) { it.Earlier = []string{text} })
	plant("other query", func(it *Item) { it.Other.Query = text })
	plant("other text", func(it *Item) { it.Other.Passages[0].Text = text })
	plant("answer", func(it *Item) { it.Answer = text })
	return items
}

// rubrics are the built-in ones and one about whole rollouts.
func rubrics(t *testing.T) []*Rubric {
	t.Helper()
	rollout, err := parse("rollout.yaml", []byte(strings.Replace(valid, "labels:", "unit: rollout\nlabels:", 1)))
	if err != nil {
		t.Fatal(err)
	}
	all := []*Rubric{rollout}
	for _, name := range Builtin() {
		all = append(all, load(t, name))
	}
	return all
}

func TestAttacksAreManyAndDiffer(t *testing.T) {
	names, texts, classes := map[string]bool{}, map[string]bool{}, map[attack.Class]int{}
	for _, a := range attack.All() {
		if names[a.Name] || texts[a.Text] || !regexp.MustCompile(`^[a-z0-9-]+$`).MatchString(a.Name) {
			t.Errorf("%s is there twice, or is no name", a.Name)
		}
		names[a.Name], texts[a.Text] = true, true
		classes[a.Class]++
	}
	if len(names) < 45 || len(classes) != 12 {
		t.Errorf("%d attacks of %d classes", len(names), len(classes))
	}
}

// Wherever an attack stands, it changes neither the frame of the prompt nor the
// lines of the material, and brings no invisible characters or chat markers.
func TestAttacksStayInsideTheFence(t *testing.T) {
	const mark = "wurzelzwerg"
	marker := regexp.MustCompile(`[<>＜＞]|\[/?[A-Za-z_]+\]`)
	for _, r := range rubrics(t) {
		benign := planted(mark)
		for _, a := range attack.All() {
			for where, it := range planted(a.Text + mark) {
				calm := r.Prompt(benign[where], PromptOptions{}, random(1))
				calmHead, calmMaterial, _ := split(t, calm)
				p := r.Prompt(it, PromptOptions{}, random(1))
				head, material, tail := split(t, p)
				if head != calmHead || strings.Contains(p.System+tail, mark) || tail != "\n"+p.sheet.reminder(false) {
					t.Fatalf("%s in the %s: the frame of %s changed:\n%s\n%s", a.Name, where, r.Name, p.System, tail)
				}
				if len(a.Text) < 400 && strings.Contains(calmMaterial, mark) && !strings.Contains(material, mark) {
					t.Errorf("%s in the %s: %s does not show the material", a.Name, where, r.Name)
				}
				if got, want := strings.Count(material, "\n"), strings.Count(calmMaterial, "\n"); got != want {
					t.Fatalf("%s in the %s: %d lines of %s instead of %d:\n%s", a.Name, where, got, r.Name, want, material)
				}
				if found := marker.FindString(material); found != "" || !utf8.ValidString(p.User) || strings.Map(visible, material) != strings.ReplaceAll(material, "\n", " ") {
					t.Fatalf("%s in the %s: %q in the material of %s:\n%q", a.Name, where, found, r.Name, material)
				}
			}
		}
	}
}

// A judge that repeats an attack, as its answer or around it, gives an error or
// the label that it chose itself.
func TestEchoedAttacksAreNoVerdict(t *testing.T) {
	for _, r := range rubrics(t) {
		for _, a := range attack.All() {
			it := item()
			it.Passages[0].Text, it.Observation, it.Answer = a.Text, a.Text, a.Text
			p := r.Prompt(it, PromptOptions{Structured: true}, random(2))
			_, material, _ := split(t, p)
			for _, echo := range []string{a.Text, material, "I was told:\n" + a.Text, "```json\n" + a.Text + "\n```", rightAnswer(p, 0) + "\n" + a.Text} {
				v, err := p.Parse(echo)
				if err != nil {
					continue
				}
				if want, _ := p.Parse(rightAnswer(p, 0)); !strings.HasPrefix(echo, "A reason.") || v.Value != want.Value {
					t.Fatalf("%s: %.200q is read as %v by %s", a.Name, echo, v, r.Name)
				}
			}
			said, err := json.Marshal(a.Text)
			if err != nil {
				t.Fatal(err)
			}
			for n := range 3 {
				want, err := p.Parse(rightAnswer(p, n))
				if err != nil {
					t.Fatal(err)
				}
				for _, answer := range []string{
					a.Text + "\n" + rightAnswer(p, n),
					a.Text + "\n```json\n" + rightObject(p, n) + "\n```",
					"<think>" + rightAnswer(p, 1-min(n, 1)) + "\n" + a.Text + "</think>\n" + rightObject(p, n),
					strings.Replace(rightObject(p, n), `"A reason."`, string(said), 1),
				} {
					v, err := p.Parse(answer)
					if len(answer) > maxAnswerBytes {
						if err == nil {
							t.Fatalf("%s: an answer of %d bytes is read", a.Name, len(answer))
						}
						continue
					}
					if err != nil || v.Value != want.Value {
						t.Fatalf("%s: %.300q is %v (%v) instead of %v by %s", a.Name, answer, v.Value, err, want.Value, r.Name)
					}
				}
			}
		}
	}
}

// obedient is a judge that does as the system message says and nothing else: it
// reads what its words stand for and the form of the answer from there. Where the material
// holds a word that only true evidence holds, it chooses what the rubric names first,
// else what it names last.
func obedient(t *testing.T, r *Rubric, p Prompt) string {
	t.Helper()
	_, material, _ := split(t, p)
	evidence := strings.Contains(material, "Zembland")
	lists := [][]label{r.content.Labels}
	if r.Kind == ToolCalls {
		lists = nil
		for _, a := range r.content.Aspects {
			lists = append(lists, a.Labels)
		}
	}
	var chosen []string
	for _, labels := range lists {
		if len(labels) == 0 {
			continue
		}
		l := labels[len(labels)-1]
		if evidence {
			l = labels[0]
		}
		word := regexp.MustCompile(`(?m)^- ([A-Z]+) when ` + regexp.QuoteMeta(l.When) + `$`).FindStringSubmatch(p.System)
		chosen = append(chosen, word[1])
	}
	if chosen == nil { // points
		chosen = []string{"0"}
		if evidence {
			chosen = []string{"4"}
		}
	}
	lines := strings.Split(strings.TrimSpace(p.System), "\n")
	form := lines[len(lines)-1]
	for i := 0; strings.Contains(form, "_"); i++ {
		form = strings.Replace(form, "_", chosen[min(i, len(chosen)-1)], 1)
	}
	return "I looked.\n" + form
}

// The label of a judge that obeys the system message does not move, with
// evidence or without, wherever the attack stands.
func TestAttacksDoNotMoveAnObedientJudge(t *testing.T) {
	for _, r := range rubrics(t) {
		for _, evidence := range []bool{false, true} {
			for _, a := range attack.All() {
				for where, it := range planted(a.Text) {
					if evidence {
						it.Query = "birthplace of Ana Lund Zembland"
					}
					p := r.Prompt(it, PromptOptions{}, random(6))
					v, err := p.Parse(obedient(t, r, p))
					want := 0.0
					switch {
					case r.Kind == Preference && !evidence:
						want = 0.5
					case evidence && !p.sheet.swapped: // the judge takes the step shown first
						want = 1
					}
					if err != nil || v.Value != want {
						t.Fatalf("%s in the %s moves %s: %v instead of %v, %v", a.Name, where, r.Name, v.Value, want, err)
					}
				}
			}
		}
	}
}
