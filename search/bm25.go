package search

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/forager-rl/forager"
)

// BM25Config sets how passages are indexed and scored.
type BM25Config struct {
	// K1 is how soon repeated terms stop adding to the score; at least 0, usually 0.6 to 2.
	K1 float64 `mapstructure:"k1"`
	// B is how much long passages are held back: 0 not at all, 1 fully.
	B float64 `mapstructure:"b"`
	// TitleWeight is how many times the title counts against once for the text; 0 leaves titles out of the index.
	TitleWeight int `mapstructure:"title_weight"`
	// Stem reduces words to their English Porter stems, so that "capitals" finds "capital".
	Stem bool `mapstructure:"stem"`
	// MaxQueryBytes cuts longer queries, at least 1.
	MaxQueryBytes int `mapstructure:"max_query_bytes"`
}

// DefaultBM25Config is the field's usual baseline over title and text.
func DefaultBM25Config() BM25Config {
	return BM25Config{K1: 0.9, B: 0.4, TitleWeight: 1, Stem: true, MaxQueryBytes: 2048}
}

// Validate reports the first setting out of range, or nil.
func (c BM25Config) Validate() error {
	switch {
	case !(c.K1 >= 0 && c.K1 <= 100):
		return fmt.Errorf("k1 is %v, expected 0 to 100", c.K1)
	case !(c.B >= 0 && c.B <= 1):
		return fmt.Errorf("b is %v, expected 0 to 1", c.B)
	case c.TitleWeight < 0 || c.TitleWeight > 100:
		return fmt.Errorf("title_weight is %d, expected 0 to 100", c.TitleWeight)
	case c.MaxQueryBytes < 1:
		return fmt.Errorf("max_query_bytes is %d, expected 1 or more", c.MaxQueryBytes)
	}
	return nil
}

// BM25 is a Retriever over a fixed set of passages: a bleve index for terms
// and postings, scored here.
//
// The score of a passage is the sum over query terms t of
//
//	ln(1 + (N - n_t + 0.5)/(n_t + 0.5)) · f/(f + k1·(1 - b + b·len/avglen))
//
// with f the count of t in TitleWeight titles and one text (Robertson and
// Zaragoza 2009, "The Probabilistic Relevance Framework", without the constant
// factor k1+1, as in Lucene). bleve's own "bm25" scoring model is not used: it
// takes the square root of f, multiplies by the idf twice and by the share of
// matching terms, divides the vocabulary by N for avglen, and keeps k1 and b
// in variables of the whole process.
//
// Equal scores are ordered by passage id, so that results never depend on how
// the index was built.
type BM25 struct {
	config   BM25Config
	passages []forager.Passage // in order of id
	index    *invertedIndex

	documents []document // by number in the index
	scratch   sync.Pool  // of *scratch

	closing sync.RWMutex // held for reading by every search
	closed  bool
}

// document is what scoring needs to know about one indexed passage.
type document struct {
	ordinal int32   // in BM25.passages
	norm    float32 // k1·(1 - b + b·len/avglen)
}

// scratch holds the scores of one query; all zero between queries.
type scratch struct {
	scores  []float64 // by document
	touched []int32   // documents with a score, in order of first touch
}

var errClosed = errors.New("bm25 index is closed")

// NewBM25 indexes passages in memory. Passage ids must be distinct.
func NewBM25(ctx context.Context, passages []forager.Passage, config BM25Config) (*BM25, error) {
	sorted, err := prepare(passages, config)
	if err != nil {
		return nil, fmt.Errorf("index passages: %w", err)
	}
	index, err := buildInMemory(ctx, sorted, config)
	if err != nil {
		return nil, fmt.Errorf("index passages: %w", err)
	}
	return newBM25(sorted, config, index)
}

// prepare checks the input and puts the passages in order of id.
func prepare(passages []forager.Passage, config BM25Config) ([]forager.Passage, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if len(passages) == 0 {
		return nil, errors.New("no passages")
	}
	sorted := slices.Clone(passages)
	slices.SortFunc(sorted, func(a, b forager.Passage) int { return cmp.Compare(a.ID, b.ID) })
	for i := range sorted {
		if i > 0 && sorted[i].ID == sorted[i-1].ID {
			return nil, fmt.Errorf("passage id %q occurs twice", sorted[i].ID)
		}
		sorted[i].Score = 0
	}
	return sorted, nil
}

func newBM25(sorted []forager.Passage, config BM25Config, index *invertedIndex) (*BM25, error) {
	r := &BM25{config: config, passages: sorted, index: index}
	ordinals, lengths, err := index.survey(len(sorted))
	if err != nil {
		_ = index.Close()
		return nil, fmt.Errorf("survey index: %w", err)
	}
	total := 0
	for _, length := range lengths {
		total += int(length)
	}
	average := max(float64(total)/float64(len(sorted)), 1e-9) // of passages without a single term
	r.documents = make([]document, len(sorted))
	for i := range r.documents {
		norm := config.K1 * (1 - config.B + config.B*float64(lengths[i])/average)
		r.documents[i] = document{ordinal: ordinals[i], norm: float32(norm)}
	}
	r.scratch.New = func() any { return &scratch{scores: make([]float64, len(sorted))} }
	return r, nil
}

// Len is the number of passages.
func (r *BM25) Len() int { return len(r.passages) }

// Close waits for running searches and releases the index. It is safe to call
// twice; searches after it fail.
func (r *BM25) Close() error {
	r.closing.Lock()
	defer r.closing.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	return r.index.Close()
}

// Search answers queries of free text; no character has a special meaning. A
// query of stop words only matches nothing. Several queries are answered on
// all cores.
func (r *BM25) Search(ctx context.Context, queries []string, k int) ([][]forager.Passage, error) {
	if k < 0 {
		return nil, fmt.Errorf("search: k is %d, expected 0 or more", k)
	}
	results := make([][]forager.Passage, len(queries))
	if len(queries) == 1 {
		found, err := r.search(ctx, queries[0], k)
		results[0] = found
		return results, err
	}
	workers := min(runtime.GOMAXPROCS(0), len(queries))
	failures := make([]error, workers)
	var next atomic.Int64
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for failures[worker] == nil {
				i := int(next.Add(1)) - 1
				if i >= len(queries) {
					return
				}
				results[i], failures[worker] = r.search(ctx, queries[i], k)
			}
		})
	}
	group.Wait()
	if err := errors.Join(failures...); err != nil {
		return nil, err
	}
	return results, nil
}

func (r *BM25) search(ctx context.Context, query string, k int) ([]forager.Passage, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("search: %w", err)
	}
	r.closing.RLock()
	defer r.closing.RUnlock()
	if r.closed {
		return nil, fmt.Errorf("search: %w", errClosed)
	}
	s := r.scratch.Get().(*scratch)
	defer r.scratch.Put(s)
	defer s.reset()
	for _, term := range r.index.terms(clip(query, r.config.MaxQueryBytes)) {
		if err := r.index.score(ctx, term, r.documents, s); err != nil {
			return nil, fmt.Errorf("search: %w", err)
		}
	}
	found := make([]forager.Passage, 0, min(k, len(s.touched)))
	for _, best := range r.best(s, k) {
		passage := r.passages[r.documents[best].ordinal]
		passage.Score = s.scores[best]
		found = append(found, passage)
	}
	return found, nil
}

// best is the k documents of highest score, ties in order of passage id.
func (r *BM25) best(s *scratch, k int) []int32 {
	order := func(a, b int32) int {
		if s.scores[a] != s.scores[b] {
			return cmp.Compare(s.scores[b], s.scores[a])
		}
		return cmp.Compare(r.documents[a].ordinal, r.documents[b].ordinal)
	}
	if k >= len(s.touched) || k > 100 {
		slices.SortFunc(s.touched, order)
		return s.touched[:min(k, len(s.touched))]
	}
	best := make([]int32, 0, k+1)
	for _, candidate := range s.touched {
		if len(best) == k && (k == 0 || order(candidate, best[k-1]) > 0) {
			continue
		}
		at, _ := slices.BinarySearchFunc(best, candidate, order)
		best = slices.Insert(best, at, candidate)
		best = best[:min(k, len(best))]
	}
	return best
}

func (s *scratch) reset() {
	for _, document := range s.touched {
		s.scores[document] = 0
	}
	s.touched = s.touched[:0]
}

// clip cuts text to at most limit bytes without splitting a character.
func clip(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	for limit > 0 && text[limit]&0xC0 == 0x80 {
		limit--
	}
	return text[:limit]
}
