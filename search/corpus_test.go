package search

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/forager-rl/forager"
)

func TestCorpusForms(t *testing.T) {
	want := []forager.Passage{{ID: "1", Title: "Lima", Text: "a city\nof Peru"}, {ID: "2", Text: "no title"}}
	for name, text := range map[string]string{
		"BEIR":      `{"_id":"1","title":"Lima","text":"a city\nof Peru","metadata":{}}` + "\n" + `{"_id":"2","text":"no title"}`,
		"Search-R1": `{"id":"1","contents":"\"Lima\"\na city\nof Peru"}` + "\r\n\r\n" + `{"id":2,"contents":"no title"}`,
		"BOM":       "\xef\xbb\xbf" + `{"id":"1","contents":"Lima\na city\nof Peru"}` + "\n" + `{"id":"2","contents":"\"\"\nno title"}`,
	} {
		path := write(t, "corpus.jsonl", text)
		for _, from := range []string{path, filepath.Dir(path)} { // the file and its BEIR folder
			if got, err := ReadCorpus(from); err != nil || !slices.Equal(got, want) {
				t.Errorf("%s from %s: %v, %v", name, from, got, err)
			}
		}
	}
	for _, name := range []string{"corpus.jsonl", "corpus.jsonl.gz"} {
		path := filepath.Join(t.TempDir(), name)
		if err := WriteCorpus(path, want); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadCorpus(filepath.Dir(path)); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestBadCorpus(t *testing.T) {
	const good = `{"_id":"1","text":"x"}` + "\n"
	for text, want := range map[string]string{
		good + "oops":            "corpus.jsonl:2: not JSON",
		good + "\n" + good:       `corpus.jsonl:3: passage id "1" occurs twice, first on line 1`,
		`{"text":"x"}`:           "corpus.jsonl:1: passage without id",
		`{"_id":"1","body":"x"}`: "corpus.jsonl:1: passage 1 has no text",
		"\n\n":                   "holds no passages",
	} {
		path := write(t, "corpus.jsonl", text)
		if _, err := ReadCorpus(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	if _, err := ReadCorpus(t.TempDir()); err == nil || !strings.Contains(err.Error(), "holds no corpus.jsonl") {
		t.Errorf("empty folder: %v", err)
	}
	if _, err := ReadCorpus("absent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

func FuzzContents(f *testing.F) {
	f.Add("Lima", "a city")
	f.Add(`the "big" one`, "\n\n")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, title, text string) {
		gotTitle, gotText := SplitContents(Contents(forager.Passage{Title: title, Text: text}))
		if gotTitle != strings.ReplaceAll(title, "\n", " ") || gotText != text {
			t.Errorf("(%q, %q) came back as (%q, %q)", title, text, gotTitle, gotText)
		}
	})
}

func FuzzDecodeResults(f *testing.F) {
	f.Add([]byte(`{"result": [[{"document": {"id": "7", "contents": "x"}, "score": 0.5}]]}`), 1)
	f.Add([]byte(`{"results": [{"id": "7", "content": "x"}]}`), 1)
	f.Add([]byte(`{"result": [[null], [{"score": "nan"}]]}`), 2)
	f.Fuzz(func(t *testing.T, body []byte, queries int) {
		if results, err := decodeResults(body, queries); err == nil && len(results) != queries {
			t.Errorf("%d lists for %d queries from %q", len(results), queries, body)
		}
	})
}
