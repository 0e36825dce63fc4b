package reward

import (
	"math"
	"strings"
	"testing"
	"unicode"
)

func TestNormalize(t *testing.T) {
	for in, want := range map[string]string{
		"The  Eiffel Tower!":     "eiffel tower",
		"a an the":               "",
		"Another theatre, Anna.": "another theatre anna", // articles go as words only
		"U.S.A.":                 "usa",
		"state-of-the-art":       "stateoftheart", // punctuation goes before articles
		"the–end":                "–end",          // punctuation outside ASCII stays and ends a word
		"  \t\n ":                "",
		"São\u00a0Paulo":         "são paulo",
		"ÉCOLE":                  "école",
		"$1,000 + 2%":            "1000 2",
		"A4 is_a road":           "a4 isa road",
		"東京 the 都":               "東京 都",
		"a\u0301":                "\u0301", // decomposed accent: as Python's \b sees it
	} {
		if got := Normalize(in); got != want {
			t.Errorf("Normalize(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestAnswerMetrics(t *testing.T) {
	for _, c := range []struct {
		name       string
		answer     string
		golds      []string
		em, f1, se float64
	}{
		{"exact", "Paris", []string{"Paris"}, 1, 1, 1},
		{"case, article and full stop", "the PARIS.", []string{"Paris"}, 1, 1, 1},
		{"second gold", "Big Apple", []string{"New York", "The Big Apple"}, 1, 1, 1},
		{"partial", "Barack Hussein Obama", []string{"Barack Obama"}, 0, 0.8, 0},
		{"contained", "in Paris, France", []string{"Paris"}, 0, 0.5, 1},
		{"multiplicity", "new new new", []string{"new york"}, 0, 0.4, 0},
		{"best gold counts", "x y", []string{"x", "x y z w"}, 0, 2.0 / 3, 1},
		{"nothing in common", "Rome", []string{"Paris"}, 0, 0, 0},
		{"empty answer", "", []string{"Paris"}, 0, 0, 0},
		{"only articles", "the", []string{"Paris"}, 0, 0, 0},
		{"no golds", "Paris", nil, 0, 0, 0},
		{"yes against a sentence", "yes it is", []string{"yes"}, 0, 0, 1},
		{"verdict against name", "yes", []string{"yes prime minister"}, 0, 0, 0},
		{"yes and no", "yes", []string{"no"}, 0, 0, 0},
		{"noanswer", "noanswer", []string{"noanswer"}, 1, 1, 1},
		{"substring is not a word", "nothing", []string{"no"}, 0, 0, 1},
		{"gold that vanishes", "a", []string{"A"}, 1, 1, 1},
		{"gold that vanishes, other article", "the", []string{"A"}, 0, 0, 0},
		{"gold that vanishes, empty answer", "", []string{"!!!"}, 0, 0, 0},
		{"unicode", "são  paulo", []string{"São Paulo"}, 1, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			for metric, v := range map[string][2]float64{
				"em":     {ExactMatch(c.answer, c.golds), c.em},
				"f1":     {F1(c.answer, c.golds), c.f1},
				"sub_em": {SubEM(c.answer, c.golds), c.se},
			} {
				if math.Abs(v[0]-v[1]) > 1e-12 {
					t.Errorf("%s(%q, %q) = %v, want %v", metric, c.answer, c.golds, v[0], v[1])
				}
			}
		})
	}
}

func TestLastAnswer(t *testing.T) {
	for _, c := range []struct {
		in, want string
		tags     int
		ok       bool
	}{
		{"<think>x</think><answer> Paris </answer>", "Paris", 1, true},
		{"<answer>a</answer><answer>b</answer>", "b", 2, true},
		{"<answer>a</answer> <answer>open", "a", 2, true},
		{"<answer></answer>", "", 1, true},
		{"</answer><answer>", "", 1, false},
		{"none", "", 0, false},
	} {
		if got, tags, ok := LastAnswer(c.in); got != c.want || tags != c.tags || ok != c.ok {
			t.Errorf("LastAnswer(%q) = %q, %d, %v", c.in, got, tags, ok)
		}
	}
}

// FuzzAnswerMetrics holds for any pair of strings: metrics lie in [0, 1], EM
// implies F1 and sub-EM, order of golds does not matter, normalising twice
// changes nothing but articles that came together.
func FuzzAnswerMetrics(f *testing.F) {
	for _, s := range [][2]string{{"Paris", "paris"}, {"", "the"}, {"a-n a", "İstanbul"}, {"yes", "no"}, {"\xff\x00", "\u0301 a"}} {
		f.Add(s[0], s[1], "x")
	}
	f.Fuzz(func(t *testing.T, answer, g1, g2 string) {
		golds, swapped := []string{g1, g2}, []string{g2, g1}
		em, f1, se := ExactMatch(answer, golds), F1(answer, golds), SubEM(answer, golds)
		for name, v := range map[string]float64{"em": em, "f1": f1, "sub_em": se} {
			if !(v >= 0 && v <= 1) {
				t.Fatalf("%s = %v out of [0, 1]", name, v)
			}
		}
		if em == 1 && (f1 != 1 || se != 1) {
			t.Fatalf("em 1 but f1 %v, sub_em %v", f1, se)
		}
		if em != ExactMatch(answer, swapped) || f1 != F1(answer, swapped) || se != SubEM(answer, swapped) {
			t.Fatal("the order of golds matters")
		}
		n := Normalize(answer)
		if strings.ContainsFunc(n, func(r rune) bool { return isASCIIPunct(r) || r != ' ' && unicode.IsSpace(r) }) || n != strings.TrimSpace(n) {
			t.Fatalf("Normalize(%q) = %q", answer, n)
		}
		if plain(answer) != "" && strings.Trim(plain(answer), " ") == plain(answer) && ExactMatch(answer, []string{answer}) != 1 {
			t.Fatalf("%q does not match itself", answer)
		}
		LastAnswer(answer)
	})
}
