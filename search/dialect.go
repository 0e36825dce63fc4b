package search

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/forager-rl/forager"
)

// Dialect names a form of request to POST /retrieve. Answers are recognised
// whatever the dialect.
type Dialect string

// The dialects in use.
const (
	DialectSearchR1 Dialect = "search-r1" // {"queries": [...], "topk", "return_scores"}: Search-R1, verl, slime, Agent Lightning
	DialectSkyRL    Dialect = "skyrl"     // {"query": "...", "topk", "return_scores"}
	DialectRLLM     Dialect = "rllm"      // {"query": "...", "top_k"}
)

// retrieveRequest holds every key that some dialect uses.
type retrieveRequest struct {
	Queries      textOrList `json:"queries,omitempty"`
	Query        textOrList `json:"query,omitempty"`
	Topk         *int       `json:"topk,omitempty"`
	TopK         *int       `json:"top_k,omitempty"`
	K            *int       `json:"k,omitempty"`
	ReturnScores *bool      `json:"return_scores,omitempty"`
}

// textOrList is a JSON string or a list of strings.
type textOrList []string

// UnmarshalJSON reads either form; null is an absent key.
func (t *textOrList) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		if !bytes.Equal(text, []byte("null")) {
			*t = textOrList{one}
		}
		return nil
	}
	var many []string
	if err := json.Unmarshal(text, &many); err != nil {
		return errors.New("queries must be a string or a list of strings")
	}
	if many == nil {
		many = []string{}
	}
	*t = many
	return nil
}

// queries is what is asked, under either name.
func (r *retrieveRequest) queries() ([]string, error) {
	switch {
	case r.Queries != nil && r.Query != nil:
		return nil, errors.New("give queries or query, not both")
	case r.Queries != nil:
		return r.Queries, nil
	case r.Query != nil:
		return r.Query, nil
	}
	return nil, errors.New("no query: expected the key queries or query")
}

// depth is the number of passages wanted, under any name; zero and absent mean
// the server's default.
func (r *retrieveRequest) depth(fallback int) (int, error) {
	for _, k := range []*int{r.Topk, r.TopK, r.K} {
		if k == nil || *k == 0 {
			continue
		}
		if *k < 0 {
			return 0, fmt.Errorf("topk is %d, expected 1 or more", *k)
		}
		return *k, nil
	}
	return fallback, nil
}

// request makes the body of one call in a dialect that carries lists or, with
// exactly one query, in those that do not.
func (d Dialect) request(queries []string, k int) any {
	scores := true
	switch d {
	case DialectRLLM:
		return singleRequest{Query: queries[0], TopK: &k}
	case DialectSkyRL:
		return singleRequest{Query: queries[0], Topk: &k, ReturnScores: &scores}
	}
	return retrieveRequest{Queries: queries, Topk: &k, ReturnScores: &scores}
}

// single tells whether the dialect asks one query a call.
func (d Dialect) single() bool { return d != DialectSearchR1 }

type singleRequest struct {
	Query        string `json:"query"`
	Topk         *int   `json:"topk,omitempty"`
	TopK         *int   `json:"top_k,omitempty"`
	ReturnScores *bool  `json:"return_scores,omitempty"`
}

// wireDocument and scoredDocument are the canonical response items.
type wireDocument struct {
	ID       string `json:"id"`
	Contents string `json:"contents"`
}

type scoredDocument struct {
	Document wireDocument `json:"document"`
	Score    float64      `json:"score"`
}

// encodeResults makes the canonical answer: one list per query, of documents
// or, with scores, of pairs of document and score.
func encodeResults(results [][]forager.Passage, scores bool) any {
	if scores {
		return encodeLists(results, func(p forager.Passage) scoredDocument {
			return scoredDocument{wireDocument{p.ID, Contents(p)}, p.Score}
		})
	}
	return encodeLists(results, func(p forager.Passage) wireDocument { return wireDocument{p.ID, Contents(p)} })
}

func encodeLists[T any](results [][]forager.Passage, encode func(forager.Passage) T) any {
	lists := make([][]T, len(results))
	for i, passages := range results {
		lists[i] = make([]T, len(passages)) // an empty list, not null
		for j, passage := range passages {
			lists[i][j] = encode(passage)
		}
	}
	return map[string]any{"result": lists}
}

// decodeResults reads an answer in any known shape: under result or results,
// one list per query or, for one query, a bare list; items flat or as document
// and score; text under contents, content or text.
func decodeResults(body []byte, queries int) ([][]forager.Passage, error) {
	var answer struct {
		Result  []json.RawMessage `json:"result"`
		Results []json.RawMessage `json:"results"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("not the JSON of search results: %w", err)
	}
	outer := answer.Result
	if outer == nil {
		outer = answer.Results
	}
	if outer == nil {
		return nil, errors.New("no search results: expected the key result")
	}
	nested := len(outer) > 0
	for _, element := range outer {
		nested = nested && bytes.HasPrefix(element, []byte("["))
	}
	if !nested && queries == 1 { // a bare list of items
		passages, err := decodeItems(outer)
		return [][]forager.Passage{passages}, err
	}
	if len(outer) != queries {
		return nil, fmt.Errorf("%d lists of results for %d queries", len(outer), queries)
	}
	results := make([][]forager.Passage, len(outer))
	for i, element := range outer {
		var items []json.RawMessage
		if err := json.Unmarshal(element, &items); err != nil {
			return nil, fmt.Errorf("result %d is not a list", i)
		}
		var err error
		if results[i], err = decodeItems(items); err != nil {
			return nil, fmt.Errorf("result %d: %w", i, err)
		}
	}
	return results, nil
}

func decodeItems(items []json.RawMessage) ([]forager.Passage, error) {
	passages := make([]forager.Passage, 0, len(items))
	for i, item := range items {
		if bytes.Equal(item, []byte("null")) {
			continue // a page that could not be fetched
		}
		row, err := decodeObject(item)
		if err != nil {
			return nil, fmt.Errorf("item %d: %w", i, err)
		}
		passages = append(passages, passageFromItem(row))
	}
	return passages, nil
}

// passageFromItem is lenient: what searches the web has no ids and sometimes
// no text.
func passageFromItem(row map[string]any) forager.Passage {
	item := record{row}
	document := item
	if nested, ok := row["document"].(map[string]any); ok {
		document = record{nested}
	}
	passage := forager.Passage{
		ID:    document.text("id", "_id", "url"),
		Title: document.text("title"),
		Text:  document.text("text"),
		Score: item.number("score"),
	}
	if contents := document.text("contents", "content"); contents != "" {
		title, text := SplitContents(contents)
		if passage.Title == "" {
			passage.Title = title
		}
		if passage.Text == "" {
			passage.Text = text
		}
	}
	if passage.ID == "" {
		digest := sha256.Sum256([]byte(passage.Title + "\x00" + passage.Text))
		passage.ID = "p" + hex.EncodeToString(digest[:6])
	}
	return passage
}
