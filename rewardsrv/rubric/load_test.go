package rubric

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/forager-rl/forager"
)

func TestBuiltinsAndTemplateLoad(t *testing.T) {
	units, versions := map[string]Unit{}, map[string]bool{}
	for _, name := range Builtin() {
		r, err := Load(name)
		if err != nil {
			t.Fatal(err)
		}
		units[r.Kind] = r.Unit()
		if r.Name != name || r.Source != "built-in:"+name || versions[r.Version()] || !strings.HasPrefix(r.Version(), "sha256:") {
			t.Errorf("%s: name %s, source %s, version %s", name, r.Name, r.Source, r.Version())
		}
		versions[r.Version()] = true
	}
	for _, kind := range kinds() {
		want := Turn
		if kind == Preference {
			want = Pair
		}
		if units[kind] != want {
			t.Errorf("kind %s: unit %q", kind, units[kind])
		}
	}
	if _, err := parse("template.yaml", Template()); err != nil {
		t.Error(err)
	}
}

// What the template shows in comments has to load as well.
func TestTemplateShowsValidFields(t *testing.T) {
	for _, kind := range kinds() {
		text := strings.Replace(string(Template()), "kind: helpfulness", "kind: "+kind, 1)
		if kind != Helpfulness && kind != Nuggets {
			text = text[:strings.Index(text, "# helpfulness and nuggets:")] + text[strings.Index(text, "# preference instead"):]
		}
		if kind == Preference || kind == ToolCalls {
			text = strings.NewReplacer("unit: turn\n", "", "history: false\n", "").Replace(text)
		}
		start := map[string]string{Preference: "# labels:\n", Nuggets: "# facts:", Principles: "# principles:\n", ToolCalls: "# aspects:\n"}[kind]
		if start != "" {
			block, _, _ := strings.Cut(text[strings.Index(text, start):], "\n\n")
			text += strings.ReplaceAll("\n"+block, "\n# ", "\n")
		}
		if _, err := parse(kind, []byte(text)); err != nil {
			t.Errorf("%s: %v\n%s", kind, err, text)
		}
	}
}

const valid = `name: mine
kind: helpfulness
instructions: decide
labels:
  - name: yes
    value: 1
    when: it helps
  - name: no
    value: 0
    when: it does not
`

func TestMistakesNameTheLineAndWhatIsExpected(t *testing.T) {
	preference := "name: p\nkind: preference\ninstructions: x\nlabels:\n  - {name: first, when: a}\n  - {name: second, when: b}\n  - {name: tie, when: c}\n"
	principles := "name: p\nkind: principles\ninstructions: x\nprinciples:\n  - {name: a, max: 4, ask: b}\n"
	cases := []struct{ name, in, old, new, want string }{
		{"missing field", valid, "instructions: decide\n", "", `r.yaml:1: field "instructions" of a helpfulness rubric is missing: the text that`},
		{"missing part", valid, "    when: it helps\n", "", `r.yaml:5: field "when" of a label is missing: the condition`},
		{"duplicate label", valid, "name: no", "name: Yes", `r.yaml:8: duplicate name "Yes": a label on line 5 has it already`},
		{"duplicate field", valid, "kind:", "name: x\nkind:", `r.yaml:2: field "name" stands on line 1 already`},
		{"unknown kind", valid, "helpfulness", "helpfullness", `r.yaml:2: unknown kind "helpfullness"; expected one of helpfulness, preference, nuggets, principles, tool_calls; the nearest is helpfulness`},
		{"no kind", valid, "kind: helpfulness\n", "", `r.yaml:1: field "kind" is missing: one of`},
		{"unknown field", valid, "instructions:", "instruction:", `r.yaml:3: unknown field "instruction" of a helpfulness rubric`},
		{"nearest field", valid, "    when: it helps", "    wenn: it helps", `the nearest is when`},
		{"field of another kind", valid, "labels:", "facts: hops\nlabels:", `r.yaml:4: unknown field "facts"`},
		{"empty text", valid, "decide", `"  "`, `r.yaml:3: expected a text that is not empty`},
		{"list for a text", valid, "decide", "[a]", `r.yaml:3: expected a text`},
		{"value out of range", valid, "value: 1", "value: 1.5", `r.yaml:6: "1.5" is no number from 0 to 1`},
		{"value not a number", valid, "value: 1", "value: .nan", `r.yaml:6: ".nan" is no number`},
		{"one value", valid, "value: 1", "value: 0", `r.yaml:5: all labels have the same value`},
		{"one label", valid, valid[strings.Index(valid, "  - name: no"):], "", `r.yaml:5: expected a list of 2 to 8 entries, each a label`},
		{"labels as a mapping", valid, valid[strings.Index(valid, "  - name: yes"):], "  yes: 1\n", `r.yaml:5: expected a list`},
		{"unit", valid, "labels:", "unit: pair\nlabels:", `r.yaml:4: "pair" is not allowed here; expected turn or rollout`},
		{"name", valid, "mine", "my rubric", `r.yaml:1: name "my rubric": expected at most 64`},
		{"two documents", valid, "when: it does not\n", "when: it does not\n---\na: b\n", `r.yaml:11: a second document`},
		{"alias", valid, "decide", "*other", `r.yaml:1: no valid YAML: unknown anchor 'other' referenced`},
		{"syntax", valid, "kind: h", "kind: 'h", `no valid YAML`},
		{"empty", valid, valid, "", `r.yaml:1: the file is empty`},
		{"comment only", valid, valid, "# nothing\n", `r.yaml:1: the file is empty`},
		{"a scalar", valid, valid, "hello", `r.yaml:1: expected a rubric`},
		{"preference without tie", preference, "  - {name: tie, when: c}\n", "", `r.yaml:5: expected a list of 3 entries`},
		{"preference with a value", preference, "when: c", "when: c, value: 1", `r.yaml:7: unknown field "value" of a label`},
		{"preference of other names", preference, "name: tie", "name: none", `r.yaml:7: "none" is not allowed here; expected first or second or tie`},
		{"half a point", principles, "max: 4", "max: 4.5", `r.yaml:5: expected a whole number`},
		{"no weight", principles, "max: 4", "max: 4, weight: 0", `r.yaml:5: expected a weight above 0`},
	}
	for _, c := range cases {
		in := strings.Replace(c.in, c.old, c.new, 1)
		if in == c.in {
			t.Fatalf("%s: nothing replaced", c.name)
		}
		if _, err := parse("r.yaml", []byte(in)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	for _, in := range []string{valid, preference, principles} {
		if _, err := parse("r.yaml", []byte(in)); err != nil {
			t.Error(err)
		}
	}
	// All mistakes are told at once.
	_, err := parse("r.yaml", []byte(strings.NewReplacer("mine", "a b", "value: 1", "value: 2").Replace(valid)))
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 2 {
		t.Errorf("%d lines: %v", len(lines), err)
	}
}

func TestLoadUnknownName(t *testing.T) {
	_, err := Load("helpfullness")
	if !errors.Is(err, forager.ErrNotFound) || !strings.Contains(err.Error(), "the nearest name is helpfulness") {
		t.Error(err)
	}
	big := filepath.Join(t.TempDir(), "big.yaml")
	if err := os.WriteFile(big, bytes.Repeat([]byte("#"), maxFileBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(big); err == nil || !strings.Contains(err.Error(), "more than 262144 bytes") {
		t.Error(err)
	}
}

func TestVersionFollowsContentAlone(t *testing.T) {
	version := func(text string) string {
		t.Helper()
		r, err := parse("r.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return r.Version()
	}
	same := version(valid)
	if version("# why\n"+strings.ReplaceAll(valid, "value: 1", "value: 1.0")) != same {
		t.Error("comments and spelling count")
	}
	var all []string
	for _, text := range []string{valid, strings.Replace(valid, "decide", "decide!", 1), strings.Replace(valid, "value: 0", "value: 0.1", 1), strings.Replace(valid, "labels:", "history: true\nlabels:", 1)} {
		all = append(all, version(text))
	}
	slices.Sort(all)
	if len(slices.Compact(all)) != 4 {
		t.Error("a change of content keeps the version")
	}
}

func TestWatcher(t *testing.T) {
	file := filepath.Join(t.TempDir(), "r.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(valid)
	var logged bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		w, err := NewWatcher(file, time.Second, slog.New(slog.NewTextHandler(&logged, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { w.Run(ctx); close(done) }()
		first := w.Current()
		for _, step := range []struct {
			text    string
			looks   int
			changed bool
			failed  string
		}{
			{valid, 2, false, ""},
			{strings.Replace(valid, "decide", "decide well", 1), 1, false, ""}, // might be half written
			{strings.Replace(valid, "decide", "decide well", 1), 1, true, ""},
			{strings.Replace(valid, "value: 1", "value: 7", 1), 5, true, "r.yaml:6"},
			{"name: p\nkind: preference\ninstructions: x\nlabels:\n  - {name: first, when: a}\n  - {name: second, when: b}\n  - {name: tie, when: c}\n", 2, true, "takes effect at the next start"},
			{valid, 2, false, ""},
		} {
			write(step.text)
			time.Sleep(time.Duration(step.looks) * time.Second)
			synctest.Wait()
			if changed := w.Current().Version() != first.Version(); changed != step.changed {
				t.Errorf("after %.40q: changed %v", step.text, changed)
			}
			if err := w.Err(); (err != nil) != (step.failed != "") || err != nil && !strings.Contains(err.Error(), step.failed) {
				t.Errorf("after %.40q: %v, want %q", step.text, err, step.failed)
			}
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if w.Err() == nil || w.Current().Version() != first.Version() {
			t.Error("a removed file", w.Err())
		}
		write(valid)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if w.Err() != nil {
			t.Error(w.Err())
		}
		cancel()
		<-done
	})
	if n := strings.Count(logged.String(), "level=ERROR"); n != 3 {
		t.Errorf("%d errors logged, want one for each cause: %s", n, &logged)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(Template())
	for _, name := range Builtin() {
		data, err := builtin.ReadFile("builtin/" + name + ".yaml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("kind: principles\nprinciples:\n  - {name: a, max: 1e300, ask: b}"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parse("r.yaml", data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "r.yaml:") {
				t.Fatalf("error without file and line: %v", err)
			}
			return
		}
		p := r.Prompt(item(), PromptOptions{}, random(1))
		if v, err := p.Parse(rightAnswer(p, 0)); err != nil || !(v.Value >= 0 && v.Value <= 1) {
			t.Fatalf("value %v, %v", v.Value, err)
		}
	})
}
