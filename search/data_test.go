package search

import (
	"testing"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/internal/realdata"
)

func mustCorpus(t testing.TB, name string) []forager.Passage {
	t.Helper()
	passages, err := ReadCorpus(realdata.Path(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return passages
}

func TestSciFact(t *testing.T) {
	r := mustBM25(t, mustCorpus(t, "beir_scifact"), DefaultBM25Config())
	b := mustBenchmark(t, "beir_scifact/queries.jsonl", "beir_scifact/qrels/test.tsv")
	if len(b.questions) != 300 || len(b.relevance) != 300 {
		t.Fatalf("%d questions, %d with judgements, expected 300", len(b.questions), len(b.relevance))
	}
	sum := 0.0
	for id, question := range b.questions {
		sum += ndcg(ids(searchOne(t, r, question, 10)), b.relevance[id], 10)
	}
	score := sum / float64(len(b.questions))
	t.Logf("SciFact nDCG@10 %.4f over %d questions", score, len(b.questions))
	if score < 0.66 {
		t.Errorf("nDCG@10 is %.4f, expected 0.66 or more", score)
	}
}

func TestClosedMultihop(t *testing.T) {
	passages := mustCorpus(t, "closed_multihop/corpus.jsonl")
	tasks, err := ReadTasks(realdata.Path(t, "closed_multihop/dev.jsonl"), TaskDefaults{})
	if err != nil {
		t.Fatal(err)
	}
	if len(passages) != 25751 || len(tasks) != 206 {
		t.Fatalf("%d passages, %d tasks", len(passages), len(tasks))
	}
	start := time.Now()
	r := mustBM25(t, passages, DefaultBM25Config())
	built := time.Since(start)
	t.Logf("indexed %d passages in %.1f s", len(passages), built.Seconds())
	if built > time.Minute {
		t.Errorf("indexing took %v, expected under a minute", built)
	}
	titles := make(map[string]string)
	for _, passage := range passages {
		titles[passage.ID] = passage.Title
	}
	mean := func(find func(query string, k int) []string) float64 {
		sum := 0.0
		for _, task := range tasks {
			var found []string
			for _, id := range find(task.Question, 5) {
				found = append(found, titles[id])
			}
			sum += recall(found, task.GoldTitles, 5)
		}
		return sum / float64(len(tasks))
	}
	start = time.Now()
	ours := mean(func(query string, k int) []string { return ids(searchOne(t, r, query, k)) })
	each := time.Since(start) / time.Duration(len(tasks))
	reference := mean(referenceBM25(passages, DefaultBM25Config()))
	t.Logf("gold-title recall@5 %.4f, reference %.4f, %v a query", ours, reference, each)
	if ours < reference-0.03 {
		t.Errorf("recall@5 is %.4f, more than 0.03 below the reference's %.4f", ours, reference)
	}
}

// The size of the world-facts corpus: about a thousand short passages, title
// weight 4, best passage only.
func BenchmarkShortPassages(b *testing.B) {
	passages := mustCorpus(b, "closed_multihop/corpus.jsonl")[:1000]
	var queries []string
	for i := range passages {
		passages[i].Text = clip(passages[i].Text, 150)
		queries = append(queries, "the capital of country "+passages[i].Title)
	}
	config := DefaultBM25Config()
	config.TitleWeight = 4
	r := mustBM25(b, passages, config)
	i := 0
	for b.Loop() {
		searchOne(b, r, queries[i%len(queries)], 1)
		i++
	}
}

func BenchmarkMultihopQuestion(b *testing.B) {
	tasks, err := ReadTasks(realdata.Path(b, "closed_multihop/dev.jsonl"), TaskDefaults{})
	if err != nil {
		b.Fatal(err)
	}
	r := mustBM25(b, mustCorpus(b, "closed_multihop/corpus.jsonl"), DefaultBM25Config())
	i := 0
	for b.Loop() {
		searchOne(b, r, tasks[i%len(tasks)].Question, 5)
		i++
	}
}
