package search

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/blevesearch/bleve/v2"

	"github.com/forager-rl/forager"
)

var countries = []forager.Passage{
	{ID: "c", Title: "Peru", Text: "Peru is a country in South America. The capital is Lima."},
	{ID: "a", Title: "Lima", Text: "Lima is a city. It is the capital of Peru."},
	{ID: "b", Title: "Chile", Text: "Chile is a country in South America. The capital is Santiago."},
	{ID: "d", Title: "Santiago", Text: "Santiago is a city in Chile's heartland."},
}

func mustBM25(t testing.TB, passages []forager.Passage, config BM25Config) *BM25 {
	t.Helper()
	r, err := NewBM25(context.Background(), passages, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func ids(passages []forager.Passage) []string {
	var out []string
	for _, passage := range passages {
		out = append(out, passage.ID)
	}
	return out
}

func searchOne(t testing.TB, r Retriever, query string, k int) []forager.Passage {
	t.Helper()
	results, err := r.Search(context.Background(), []string{query}, k)
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != 1 {
		t.Fatalf("%d lists for one query", len(results))
	}
	return results[0]
}

func TestBM25FindsAndBreaksTiesByID(t *testing.T) {
	r := mustBM25(t, countries, DefaultBM25Config())
	for query, want := range map[string]string{
		"capitals of Chile":           "b", // stemmed
		"Lima":                        "a",
		"city Santiago":               "d",
		"country":                     "b c", // equal scores: order of id
		"the of and":                  "",    // stop words only
		"":                            "",
		"zzz":                         "",
		`+text:"lima" -peru* ~^ (((/`: "a c", // query syntax is plain text
	} {
		got := ids(searchOne(t, r, query, 4))
		if want != "" && !strings.Contains(want, " ") && len(got) > 1 {
			got = got[:1]
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q found %v, want %q", query, got, want)
		}
	}
	if got := searchOne(t, r, "capital", 0); len(got) != 0 {
		t.Errorf("k 0 found %v", got)
	}
	if _, err := r.Search(context.Background(), []string{"x"}, -1); err == nil {
		t.Error("k -1 was accepted")
	}
	several, err := r.Search(context.Background(), []string{"Lima", "", "Chile"}, 1)
	if err != nil || len(several) != 3 || several[0][0].ID != "a" || len(several[1]) != 0 || several[2][0].ID != "b" {
		t.Errorf("three queries: %v, %v", several, err)
	}
}

func TestBM25LongQueryIsCut(t *testing.T) {
	config := DefaultBM25Config()
	config.MaxQueryBytes = 9
	r := mustBM25(t, countries, config)
	if got := searchOne(t, r, "zz zéé zé Lima", 1); len(got) != 0 {
		t.Errorf("text past the limit was searched: %v", got)
	}
	if clip("aé", 2) != "a" || clip("aé", 3) != "aé" {
		t.Error("clip splits a character")
	}
}

func TestBM25Config(t *testing.T) {
	for _, change := range []func(*BM25Config){
		func(c *BM25Config) { c.K1 = -1 }, func(c *BM25Config) { c.B = math.NaN() },
		func(c *BM25Config) { c.TitleWeight = -1 }, func(c *BM25Config) { c.MaxQueryBytes = 0 },
	} {
		config := DefaultBM25Config()
		change(&config)
		if _, err := NewBM25(context.Background(), countries, config); err == nil {
			t.Errorf("%+v was accepted", config)
		}
	}
	if _, err := NewBM25(context.Background(), nil, DefaultBM25Config()); err == nil {
		t.Error("no passages were accepted")
	}
	if _, err := NewBM25(context.Background(), append(countries, countries[0]), DefaultBM25Config()); err == nil {
		t.Error("an id that occurs twice was accepted")
	}
}

func TestBM25Close(t *testing.T) {
	r := mustBM25(t, countries, DefaultBM25Config())
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Search(context.Background(), []string{"Lima"}, 1); err == nil {
		t.Error("a closed index answered")
	}
}

// referenceBM25 is the formula over plain maps, with bleve's analyser alone.
func referenceBM25(passages []forager.Passage, config BM25Config) func(query string, k int) []string {
	analyzer := bleve.NewIndexMapping().AnalyzerNamed(analyzerName(config))
	counts := make([]map[string]float64, len(passages))
	lengths := make([]float64, len(passages))
	matching := make(map[string]float64)
	total := 0.0
	for i, passage := range passages {
		counts[i] = make(map[string]float64)
		for _, token := range analyzer.Analyze([]byte(strings.Repeat(passage.Title+" ", config.TitleWeight) + passage.Text)) {
			counts[i][string(token.Term)]++
			lengths[i]++
		}
		for term := range counts[i] {
			matching[term]++
		}
		total += lengths[i]
	}
	n := float64(len(passages))
	return func(query string, k int) []string {
		tokens := analyzer.Analyze([]byte(query))
		scores := make([]float64, len(passages))
		var order []int
		for i := range passages {
			for _, token := range tokens {
				f := counts[i][string(token.Term)]
				if f == 0 {
					continue
				}
				df := matching[string(token.Term)]
				idf := math.Log(1 + (n-df+0.5)/(df+0.5))
				scores[i] += idf * f / (f + config.K1*(1-config.B+config.B*lengths[i]/(total/n)))
			}
			if scores[i] > 0 {
				order = append(order, i)
			}
		}
		slices.SortFunc(order, func(a, b int) int {
			if d := scores[b] - scores[a]; math.Abs(d) > 1e-6 {
				return int(math.Copysign(1, d))
			}
			return strings.Compare(passages[a].ID, passages[b].ID)
		})
		var found []string
		for _, i := range order[:min(k, len(order))] {
			found = append(found, passages[i].ID)
		}
		return found
	}
}

func TestBM25AgainstTheFormula(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("lima peru chile city capital river mountain country language border sea island north south")
	sentence := func(n int) string {
		var b strings.Builder
		for range n {
			b.WriteString(words[min(random.IntN(len(words)), random.IntN(len(words)))] + " ")
		}
		return b.String()
	}
	var passages []forager.Passage
	for i := range 300 {
		passages = append(passages, forager.Passage{ID: fmt.Sprintf("%03d", i), Title: sentence(1 + random.IntN(2)), Text: sentence(1 + random.IntN(30))})
	}
	for _, config := range []BM25Config{
		DefaultBM25Config(),
		{K1: 1.5, B: 0.75, TitleWeight: 4, Stem: false, MaxQueryBytes: 100},
		{K1: 0, B: 0, TitleWeight: 0, Stem: true, MaxQueryBytes: 100},
	} {
		r := mustBM25(t, passages, config)
		reference := referenceBM25(passages, config)
		for range 40 {
			query := sentence(1 + random.IntN(5))
			if got, want := ids(searchOne(t, r, query, 150)), reference(query, 150); !sameUpToTies(got, want) {
				t.Fatalf("%+v %q:\n got %v\nwant %v", config, query, got, want)
			}
		}
	}
}

// sameUpToTies allows neighbours whose scores differ by rounding to swap.
func sameUpToTies(got, want []string) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		if got[i] != want[i] && (i == 0 || got[i] != want[i-1]) && (i == len(got)-1 || got[i] != want[i+1]) {
			return false
		}
	}
	return true
}

func TestCache(t *testing.T) {
	asked := &counting{inner: mustBM25(t, countries, DefaultBM25Config())}
	c := Cached(asked, 2)
	ctx := context.Background()
	for range 2 {
		got, err := c.Search(ctx, []string{"Lima", "Chile"}, 1)
		if err != nil || got[0][0].ID != "a" || got[1][0].ID != "b" {
			t.Fatalf("%v, %v", got, err)
		}
	}
	if _, err := c.Search(ctx, []string{"Lima", "Peru"}, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Search(ctx, []string{"Lima"}, 2); err != nil { // another k is another answer
		t.Fatal(err)
	}
	if hits, misses := c.Counts(); hits != 3 || misses != 4 || asked.queries != 4 {
		t.Errorf("%d hits, %d misses, %d queries reached the index", hits, misses, asked.queries)
	}
	if _, err := Cached(asked, 0).Search(ctx, []string{"Lima"}, 1); err != nil || asked.queries != 5 {
		t.Errorf("a cache of size 0: %v", err)
	}
}

type counting struct {
	inner   Retriever
	queries int
}

func (c *counting) Search(ctx context.Context, queries []string, k int) ([][]forager.Passage, error) {
	c.queries += len(queries)
	return c.inner.Search(ctx, queries, k)
}
