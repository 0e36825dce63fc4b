package search

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/blevesearch/bleve/v2"
	"github.com/blevesearch/bleve/v2/analysis"
	"github.com/blevesearch/bleve/v2/analysis/analyzer/standard"
	"github.com/blevesearch/bleve/v2/analysis/lang/en"
	"github.com/blevesearch/bleve/v2/mapping"
	bleveindex "github.com/blevesearch/bleve_index_api"

	"github.com/forager-rl/forager"
)

const (
	field = "text" // the one field: TitleWeight titles and the text
	// batchSize is how many passages are analysed and written at once: large,
	// because in memory each batch stays a segment of its own.
	batchSize = 20_000
)

// invertedIndex is a bleve index that is no longer written to. Its document ids are
// the decimal ordinals of the passages; it stores neither text nor positions.
type invertedIndex struct {
	bleve    bleve.Index
	reader   bleveindex.IndexReader
	analyzer analysis.Analyzer
}

// indexMapping says what bleve keeps of a passage: terms and their counts.
func indexMapping(config BM25Config) *mapping.IndexMappingImpl {
	text := bleve.NewTextFieldMapping()
	text.Analyzer = analyzerName(config)
	text.Store = false
	text.IncludeTermVectors = false
	text.IncludeInAll = false
	text.DocValues = false
	passage := bleve.NewDocumentStaticMapping()
	passage.AddFieldMappingsAt(field, text)
	m := bleve.NewIndexMapping()
	m.ScoringModel = bleveindex.BM25Scoring
	m.DefaultMapping = passage
	return m
}

// analyzerName: both analysers split at Unicode word boundaries, lower-case
// and drop English stop words; "en" drops possessives and applies Porter's
// stemmer as well.
func analyzerName(config BM25Config) string {
	if config.Stem {
		return en.AnalyzerName
	}
	return standard.Name
}

// indexed is what bleve sees of a passage.
func indexed(passage forager.Passage, config BM25Config) map[string]any {
	return map[string]any{field: strings.Repeat(passage.Title+"\n", config.TitleWeight) + passage.Text}
}

func buildInMemory(ctx context.Context, passages []forager.Passage, config BM25Config) (*invertedIndex, error) {
	built, err := bleve.New("", indexMapping(config)) // no path: in memory
	if err != nil {
		return nil, err
	}
	fill := func() error {
		batch := built.NewBatch()
		for i, passage := range passages {
			if err := batch.Index(strconv.Itoa(i), indexed(passage, config)); err != nil {
				return fmt.Errorf("passage %s: %w", passage.ID, err)
			}
			if batch.Size() < batchSize && i < len(passages)-1 {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := built.Batch(batch); err != nil {
				return err
			}
			batch.Reset()
		}
		return nil
	}
	if err := fill(); err != nil {
		return nil, errors.Join(err, built.Close())
	}
	return newIndex(built, config)
}

// newIndex takes over a filled bleve index.
func newIndex(built bleve.Index, config BM25Config) (*invertedIndex, error) {
	advanced, err := built.Advanced()
	if err != nil {
		return nil, errors.Join(err, built.Close())
	}
	reader, err := advanced.Reader()
	if err != nil {
		return nil, errors.Join(err, built.Close())
	}
	analyzer := built.Mapping().AnalyzerNamed(analyzerName(config))
	if analyzer == nil {
		return nil, errors.Join(errors.New("bleve knows no analyser "+analyzerName(config)), reader.Close(), built.Close())
	}
	return &invertedIndex{bleve: built, reader: reader, analyzer: analyzer}, nil
}

// Close releases the index.
func (x *invertedIndex) Close() error { return errors.Join(x.reader.Close(), x.bleve.Close()) }

// term is one distinct term of a query and how often the query says it.
type term struct {
	text  []byte
	count float64
}

// terms analyses a query into distinct terms in order of first appearance.
func (x *invertedIndex) terms(query string) []term {
	var terms []term
	seen := make(map[string]int)
	for _, token := range x.analyzer.Analyze([]byte(query)) {
		if i, ok := seen[string(token.Term)]; ok {
			terms[i].count++
			continue
		}
		seen[string(token.Term)] = len(terms)
		terms = append(terms, term{token.Term, 1})
	}
	return terms
}

// score adds one term's part to the scores of the documents that hold it.
func (x *invertedIndex) score(ctx context.Context, t term, documents []document, s *scratch) error {
	return x.postings(ctx, t.text, func(matching uint64) func(document int, count uint64) {
		n, total := float64(matching), float64(len(documents))
		weight := t.count * math.Log1p((total-n+0.5)/(n+0.5))
		return func(document int, count uint64) {
			f := float64(count)
			if s.scores[document] == 0 {
				s.touched = append(s.touched, int32(document))
			}
			s.scores[document] += weight * (f / (f + float64(documents[document].norm)))
		}
	})
}

// postings reads one term's documents. begin gets their number and returns
// what is called with each document and the term's count in it.
func (x *invertedIndex) postings(ctx context.Context, text []byte, begin func(matching uint64) func(document int, count uint64)) (err error) {
	reader, err := x.reader.TermFieldReader(ctx, text, field, true, false, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	visit := begin(reader.Count())
	var posting bleveindex.TermFieldDoc
	for {
		next, err := reader.Next(&posting)
		if err != nil || next == nil {
			return err
		}
		number, err := documentNumber(next.ID)
		if err != nil {
			return err
		}
		visit(number, next.Freq)
	}
}

// survey finds each document's passage and its length in terms, which bleve
// knows only in rounded form.
func (x *invertedIndex) survey(passages int) (ordinals, lengths []int32, err error) {
	count, err := x.reader.DocCount()
	if err != nil {
		return nil, nil, err
	}
	if count != uint64(passages) {
		return nil, nil, fmt.Errorf("index holds %d passages, the corpus %d: %w", count, passages, forager.ErrCorrupt)
	}
	ordinals, lengths = make([]int32, passages), make([]int32, passages)
	documents, err := x.reader.DocIDReaderAll()
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, documents.Close()) }()
	for {
		id, err := documents.Next()
		if err != nil {
			return nil, nil, err
		}
		if id == nil {
			break
		}
		number, err := documentNumber(id)
		if err != nil {
			return nil, nil, err
		}
		name, err := x.reader.ExternalID(id)
		if err != nil {
			return nil, nil, err
		}
		ordinal, err := strconv.Atoi(name)
		if err != nil || ordinal < 0 || ordinal >= passages || number >= passages {
			return nil, nil, fmt.Errorf("index document %d has id %q: %w", number, name, forager.ErrCorrupt)
		}
		ordinals[number] = int32(ordinal)
	}
	return ordinals, lengths, x.measure(lengths)
}

// measure sums the counts of all terms of each document.
func (x *invertedIndex) measure(lengths []int32) (err error) {
	dictionary, err := x.reader.FieldDict(field)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dictionary.Close()) }()
	add := func(document int, count uint64) { lengths[document] += int32(count) }
	for {
		entry, err := dictionary.Next()
		if err != nil || entry == nil {
			return err
		}
		err = x.postings(context.Background(), []byte(entry.Term), func(uint64) func(int, uint64) { return add })
		if err != nil {
			return err
		}
	}
}

// documentNumber reads bleve's internal id, eight bytes, big-endian.
func documentNumber(id bleveindex.IndexInternalID) (int, error) {
	if len(id) != 8 {
		return 0, fmt.Errorf("index document id has %d bytes, expected 8: %w", len(id), forager.ErrCorrupt)
	}
	return int(binary.BigEndian.Uint64(id)), nil
}
