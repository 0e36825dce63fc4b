package rewardmodel

import (
	"math/bits"
	"reflect"
	"strings"
	"testing"
)

func wordsOf(text string) (out []word) {
	for {
		w, rest, ok := nextWord(text)
		if !ok {
			return out
		}
		out = append(out, w)
		text = rest
	}
}

func TestWords(t *testing.T) {
	for text, want := range map[string][]string{
		"":                            {},
		" -- ":                        {},
		"Émile Zola's J’Accuse…!":     {"émile", "zola", "j", "accuse"},
		"Puneet Sira’s 1st film, s 2": {"puneet", "sira", "1st", "film", "s", "2"},
		"a\xff\xfeb":                  {"a", "b"},
		"東京タワー":                       {"東京タワー"},
	} {
		got := wordsOf(text)
		if len(got) != len(want) {
			t.Errorf("%q has %d words, want %d", text, len(got), len(want))
			continue
		}
		for i, w := range want {
			if got[i].hash != wordsOf(w)[0].hash {
				t.Errorf("%q: word %d is not %q", text, i, w)
			}
		}
	}
	w := wordsOf("The 1st émile Émile")
	for i, want := range []word{{capital: true}, {number: true}, {}, {capital: true}} {
		if w[i].capital != want.capital || w[i].number != want.number {
			t.Errorf("word %d: %+v", i, w[i])
		}
	}
}

// TestPassages: every layout that actors use gives the same passages.
func TestPassages(t *testing.T) {
	want := [][2]string{{"Weird \"Al\" Yankovic", "An American singer: a parodist."}, {"Min datter Nelly", "A film of 1955.\nIt is Danish."}}
	for name, text := range map[string]string{
		"search-r1": "Doc 1(Title: \"Weird \"Al\" Yankovic\") An American singer: a parodist.\nDoc 2(Title: \"Min datter Nelly\") A film of 1955.\nIt is Danish.",
		"verl":      "Doc 1 (Title: \"Weird \"Al\" Yankovic\")\nAn American singer: a parodist.\n\nDoc 2 (Title: \"Min datter Nelly\")\nA film of 1955.\nIt is Danish.",
		"skyrl":     "Doc 1: \"Weird \"Al\" Yankovic\"\nAn American singer: a parodist.\nDoc 2: \"Min datter Nelly\"\nA film of 1955.\nIt is Danish.",
	} {
		var got [][2]string
		eachPassage("\n\n<information>"+text+"</information>\n\n", func(title, text string) {
			got = append(got, [2]string{strings.Trim(title, `"`), strings.TrimSpace(text)})
		})
		want := want
		if name == "skyrl" { // quotes at the ends go with those around the title
			want = [][2]string{{"Weird \"Al\" Yankovic", want[0][1]}, want[1]}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	var got [][2]string
	eachPassage("\n<information>A: b: c\n\nno title\nD: e", func(title, text string) { got = append(got, [2]string{title, text}) })
	if want := [][2]string{{"A", "b: c"}, {"", "no title"}, {"D", "e"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("plain: %q, want %q", got, want)
	}
	eachPassage("<information></information>", func(string, string) { t.Error("a passage in an empty block") })
}

func read(question, query, observation string) *reading {
	var d reader
	var r reading
	d.read(&r, Example{question, query, observation})
	return &r
}

func TestReading(t *testing.T) {
	r := read("When was the director of Min Datter Nelly born?", "min datter Nelly 1955",
		"<information>Doc 1(Title: \"Nelly (film)\") The director of Min datter was born.\nDoc 2(Title: \"X\") in 1955</information>")
	// 0 when, 1 was, 2 the, 3 director, 4 of, 5 min, 6 datter, 7 nelly, 8 born
	if r.question.count != 9 || r.question.capitals != 1<<5|1<<6|1<<7 || r.asked != 1<<5|1<<6|1<<7 {
		t.Errorf("question: %d words, capitals %b, asked %b", r.question.count, r.question.capitals, r.asked)
	}
	if r.query.count != 4 || r.query.numbers != 1<<3 || r.known != 1<<0|1<<1|1<<2 {
		t.Errorf("query: %d words, numbers %b, known %b", r.query.count, r.query.numbers, r.known)
	}
	if r.count != 2 {
		t.Fatalf("%d passages", r.count)
	}
	p := r.passages[0]
	if p.question != 1<<1|1<<2|1<<3|1<<4|1<<5|1<<6|1<<7|1<<8 || p.query != 1<<0|1<<1|1<<2 {
		t.Errorf("first passage: %b, %b", p.question, p.query)
	}
	if p.pairs != 1<<2|1<<3|1<<4|1<<5 {
		t.Errorf("side by side: %b", p.pairs)
	}
	if p.titleCount != 2 || p.titleQuestion != 1 || p.titleQuery != 1 || p.words != 9 {
		t.Errorf("title: %d words, %b, %b; passage of %d words", p.titleCount, p.titleQuestion, p.titleQuery, p.words)
	}
	if p := r.passages[1]; p.query != 1<<3 || p.numbers != 1 {
		t.Errorf("second passage: %b, %d numbers", p.query, p.numbers)
	}
}

func TestFeatures(t *testing.T) {
	var w weights
	for i := range w {
		w[i] = 1
	}
	w[read("rare", "", "").question.buckets[0]] = 0.5
	var x features
	// Question: where, did, Anna, Rare, win. The query has anna; a passage has anna, rare, and later win.
	x.compute(read("Where did Anna Rare win 1990?", "Anna Smith", "<information>Anna Rare: she lost 3 times\nOther: they win</information>"), &w)
	for _, c := range []struct {
		name    string
		feature int
		want    float32
	}{
		{"asked", featAsked, 1 / 5.5},
		{"known", featKnown, 0.5},
		{"all", featAll, 2.5 / 5.5},
		{"best", featBest, 1.5 / 5.5},
		{"first", featFirst, 1.5 / 5.5},
		{"margin", featMargin, 1.5/5.5 - 1.25/5.5},
		{"rank", featRank, 1},
		{"weight", featWeight, 0.15},
		{"beyond, best", featBeyondBest, 1 / 5.5},
		{"beyond, all", featBeyondAll, 1.5 / 5.5},
		{"query, all", featQueryAll, 0.5},
		{"query, new", featQueryNew, 0},
		{"query, missed", featQueryMissed, 0.5},
		{"title, best", featTitleBest, 1},
		{"title, whole", featTitleWhole, 1},
		{"title, query", featTitleQuery, 1 / 1.5},
		{"title, query, whole", featTitleQueryWhole, 0},
		{"pairs", featPairsAll, 1.5 / 9},
		{"names", featNamesAll, 1},
		{"names, asked", featNamesAsked, 0.5},
		{"numbers", featNumbers, 0},
		{"has numbers", featHasNumbers, 1},
		{"top, found", featTopFound, 1},
		{"top, missed", featTopMissed, 1},
		{"passages", featPassages, 0.25},
		{"digits", featDigits, 5 * 1.0 / 9},
	} {
		if got := x[c.feature]; got-c.want > 1e-5 || c.want-got > 1e-5 {
			t.Errorf("%s is %v, want %v", c.name, got, c.want)
		}
	}
}

// FuzzRead: any text is read within the bounds, and gives finite features.
func FuzzRead(f *testing.F) {
	f.Add("Who?", "query", "<information>Doc 1(Title: \"t\") text\nDoc 2: \"u\"\n</information>")
	f.Add(strings.Repeat("w0 W1 ", 99), strings.Repeat("é", 9000), strings.Repeat("Doc 1", 2000))
	f.Add("\xff", "Doc 9", "Doc 1(Title: \"")
	var d reader
	var r reading
	w := (&frequencies{}).weights()
	f.Fuzz(func(t *testing.T, question, query, observation string) {
		e := Example{question, query, observation}
		d.read(&r, e)
		if r.count > maxPassages || r.question.count > maxQuestion || bits.Len64(r.asked) > int(r.question.count) || bits.Len64(r.known) > int(r.query.count) {
			t.Fatalf("out of bounds: %+v", r)
		}
		var x features
		x.compute(&r, w)
		for i, v := range x {
			if v-v != 0 {
				t.Fatalf("feature %d is %v", i, v)
			}
		}
		var other frequencies
		other.example(e)
		if r.count > 0 && other.documents == 0 {
			t.Fatal("no document was counted")
		}
	})
}
