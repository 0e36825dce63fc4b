package search

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/forager-rl/forager/internal/realdata"
)

// benchmark is the questions of a retrieval benchmark in BEIR's form, with the
// relevance of passages by the questions' ids.
type benchmark struct {
	questions map[string]string
	relevance map[string]map[string]int
}

func mustBenchmark(t *testing.T, queries, judgements string) benchmark {
	t.Helper()
	b := benchmark{questions: make(map[string]string), relevance: make(map[string]map[string]int)}
	err := eachLine(realdata.Path(t, queries), func(_ int, text []byte) error {
		row, err := decodeObject(text)
		columns := record{row}
		b.questions[columns.text("_id")] = columns.text("text")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	err = eachLine(realdata.Path(t, judgements), func(line int, text []byte) error {
		if line == 1 {
			return nil // the header
		}
		fields := strings.Split(strings.TrimSpace(string(text)), "\t") // query-id, corpus-id, score
		grade, err := strconv.Atoi(fields[len(fields)-1])
		if b.relevance[fields[0]] == nil {
			b.relevance[fields[0]] = make(map[string]int)
		}
		b.relevance[fields[0]][fields[1]] = grade
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ndcg is the normalised discounted cumulative gain of a ranking at depth k,
// in [0, 1], with linear gain and log2 discount as trec_eval and BEIR compute
// it. Relevance is by passage id; a query with none gives 0. Ids that occur
// twice in the ranking count once.
func ndcg(ranked []string, relevance map[string]int, k int) float64 {
	distinct := unique(ranked)
	gain := 0.0
	for i, id := range distinct[:min(k, len(distinct))] {
		gain += float64(max(relevance[id], 0)) / math.Log2(float64(i)+2)
	}
	ideal := make([]int, 0, len(relevance))
	for _, grade := range relevance {
		if grade > 0 {
			ideal = append(ideal, grade)
		}
	}
	slices.SortFunc(ideal, func(a, b int) int { return b - a })
	best := 0.0
	for i, grade := range ideal[:min(k, len(ideal))] {
		best += float64(grade) / math.Log2(float64(i)+2)
	}
	if best == 0 {
		return 0
	}
	return gain / best
}

// recall is the share of the wanted ids or titles among the first k of a
// ranking, in [0, 1]; 0 when nothing is wanted.
func recall(ranked, wanted []string, k int) float64 {
	wanted = unique(wanted)
	if len(wanted) == 0 {
		return 0
	}
	found := 0
	for _, id := range wanted {
		if slices.Contains(ranked[:min(k, len(ranked))], id) {
			found++
		}
	}
	return float64(found) / float64(len(wanted))
}

// The measures that quality on real data is told in.
func TestMeasures(t *testing.T) {
	relevance := map[string]int{"a": 2, "b": 1, "z": 0}
	perfect := 2 + 1/math.Log2(3)
	for _, c := range []struct {
		ranked []string
		k      int
		want   float64
	}{
		{[]string{"a", "b"}, 10, 1},
		{[]string{"b", "a"}, 10, (1 + 2/math.Log2(3)) / perfect},
		{[]string{"x", "a"}, 10, 2 / math.Log2(3) / perfect},
		{[]string{"a", "a"}, 10, 2 / perfect},
		{[]string{"a"}, 1, 1},
		{nil, 10, 0},
	} {
		if got := ndcg(c.ranked, relevance, c.k); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("ndcg(%v, %d) = %v, want %v", c.ranked, c.k, got, c.want)
		}
	}
	if ndcg([]string{"a"}, nil, 10) != 0 || recall([]string{"a"}, nil, 5) != 0 {
		t.Error("nothing wanted is not 0")
	}
	if got := recall([]string{"a", "a", "c", "b"}, []string{"a", "b", "b"}, 3); got != 0.5 {
		t.Errorf("recall = %v", got)
	}
}
