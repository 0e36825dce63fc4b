package rubric

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/forager-rl/forager"
)

func TestRedact(t *testing.T) {
	task := forager.Task{
		Answers:       []string{"New York", "USA", "Žižek", "The Beatles", "北京", "1,000", "Lord of the Rings", "€"},
		Decomposition: []forager.Hop{{Answer: "New York City"}},
	}
	for in, want := range map[string]string{
		"It says new york city, plainly.":   "It says [answer], plainly.",
		"It says New-York/London":           "It says [answer]/London",
		"New Yorkers are no answer":         "New Yorkers are no answer",
		"NEW YORK and USA":                  "[answer] and [answer]",
		"by žižek\nand\tothers":             "by [answer] and others",
		"by Zizek and Z\u030cIZ\u030cEK":    "by [answer] and [answer]",
		"made in the U.S.A. of old":         "made in the [answer]. of old",
		"the Beatles, or beatles, sang":     "[answer], or [answer], sang",
		"在北京市里":                             "在[answer]市里",
		"some 1000 or 1,000 or 10000":       "some [answer] or [answer] or 10000",
		"New\u200b Yo\u00adrk":              "[answer]",
		"Lord of Rings":                     withheld,
		"5 € please":                        "5 [answer] please",
		"nothing here":                      "nothing here",
		strings.Repeat("é", 400):            strings.Repeat("é", 150) + "…",
		"x" + strings.Repeat(" abcd", 100):  "x" + strings.Repeat(" abcd", 59) + "…",
		strings.Repeat("x ", 149) + "usage": strings.TrimSpace(strings.Repeat("x ", 149)) + "…",
		"control \x1b[31m and \xff invalid": "control [31m and invalid",
	} {
		if got := Redact(in, task); got != want {
			t.Errorf("Redact(%q) = %q, want %q", in, got, want)
		}
	}
}

// Whatever a rationale makes of an answer's case, accents, punctuation and
// spaces, no verdict that leaves the server holds it.
func TestRedactedVerdictsHoldNoAnswer(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	letters := []rune("abcdefghijklmnopqrstuvwxyzéüßøłğçñжд北京서울")
	word := func() string {
		var b strings.Builder
		for range 3 + rng.IntN(6) {
			b.WriteRune(letters[rng.IntN(len(letters))])
		}
		return b.String()
	}
	disguises := []func(string) string{
		strings.ToUpper,
		strings.ToTitle,
		func(s string) string { return strings.ReplaceAll(s, " ", "-") },
		func(s string) string { return strings.ReplaceAll(s, " ", "\n \t") },
		func(s string) string { return `"` + s + `"` },
		func(s string) string { return strings.Join(strings.Split(s, ""), "\u200b") },
		func(s string) string { return strings.NewReplacer("é", "e", "ü", "u\u0308", "ç", "c").Replace(s) },
		func(s string) string { return s + "'s" },
		func(s string) string { return strings.Join(strings.Split(s, " "), ". ") + "." },
	}
	for range 2000 {
		gold, hop := word()+" "+word(), word()
		task := forager.Task{Answers: []string{gold}, Decomposition: []forager.Hop{{Answer: hop}}}
		hide := func(s string) string { return disguises[rng.IntN(len(disguises))](s) }
		said := "It says that " + hide(gold) + " is it, by " + hide(hop) + "."
		v := Verdict{Rationale: said, Details: map[string]string{"fact 1": said}}.Redacted(task)
		for _, text := range []string{v.Rationale, v.Details["fact 1"]} {
			for _, keep := range []bool{true, false} {
				if f := fold(text, keep); f.find(fold(gold, keep)) != nil || f.find(fold(hop, keep)) != nil {
					t.Fatalf("%q keeps %q or %q: %q", said, gold, hop, text)
				}
			}
			if !strings.Contains(text, redacted) && text != withheld {
				t.Fatalf("%q lost more than the answers: %q", said, text)
			}
		}
	}
}

// FuzzRedact holds that no accepted answer survives as whole words.
func FuzzRedact(f *testing.F) {
	f.Add("the capital is Paris, of course", "Paris")
	f.Add("a-b a b", "a b")
	f.Add("İstanbul ıI", "istanbul")
	f.Add("b c", "b the c")
	f.Fuzz(func(t *testing.T, rationale, gold string) {
		r := Redact(rationale, forager.Task{Answers: []string{gold}})
		if w := words(gold); strings.TrimSpace(w) != "" && r != withheld && strings.Contains(words(strings.ReplaceAll(r, redacted, ".")), w) {
			t.Fatalf("Redact(%q) keeps %q: %q", rationale, gold, r)
		}
		if len(r) > maxRationaleBytes+len("…") || strings.ContainsAny(r, "\n\r") || !utf8.ValidString(r) {
			t.Fatalf("rationale of %d bytes: %q", len(r), r)
		}
	})
}
