package search

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/forager-rl/forager"
)

// ReadCorpus reads all passages of a corpus: a JSONL file (packed when its
// name ends in .gz) of BEIR rows {_id, title, text} or Search-R1 rows {id,
// contents}, or a BEIR folder that holds corpus.jsonl. Errors name file and
// line; an empty corpus and an id that occurs twice are errors.
func ReadCorpus(path string) ([]forager.Passage, error) {
	var passages []forager.Passage
	lines := make(map[string]int)
	file, err := corpusFile(path)
	if err == nil {
		err = eachPassage(file, func(line int, passage forager.Passage) error {
			if first, ok := lines[passage.ID]; ok {
				return fmt.Errorf("passage id %q occurs twice, first on line %d", passage.ID, first)
			}
			lines[passage.ID] = line
			passages = append(passages, passage)
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read corpus: %w", err)
	}
	if len(passages) == 0 {
		return nil, forager.WithHint(fmt.Errorf("read corpus: %s holds no passages", path),
			"write one JSON object a line with _id, title and text")
	}
	return passages, nil
}

// WriteCorpus writes passages as BEIR rows. The file appears whole or not at
// all. Scores are not written.
func WriteCorpus(path string, passages []forager.Passage) error {
	rows := make([]beirRow, len(passages))
	for i, passage := range passages {
		rows[i] = beirRow{ID: passage.ID, Title: passage.Title, Text: passage.Text}
	}
	return writeLines(path, rows)
}

type beirRow struct {
	ID    string `json:"_id"`
	Title string `json:"title"`
	Text  string `json:"text"`
}

// corpusFile finds the corpus inside a BEIR folder.
func corpusFile(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return path, err
	}
	for _, name := range []string{"corpus.jsonl", "corpus.jsonl.gz"} {
		file := filepath.Join(path, name)
		if _, err := os.Stat(file); err == nil {
			return file, nil
		}
	}
	return "", forager.WithHint(fmt.Errorf("folder %s holds no corpus.jsonl: %w", path, forager.ErrNotFound),
		"name a corpus file or a folder in BEIR form")
}

func eachPassage(path string, visit func(line int, passage forager.Passage) error) error {
	return eachLine(path, func(line int, text []byte) error {
		row, err := decodeObject(text)
		if err != nil {
			return err
		}
		passage, err := passageFromRow(row)
		if err != nil {
			return err
		}
		return visit(line, passage)
	})
}

func passageFromRow(row map[string]any) (forager.Passage, error) {
	columns := record{row}
	passage := forager.Passage{ID: columns.text("_id", "id"), Title: columns.text("title"), Text: columns.text("text")}
	if contents := columns.text("contents", "content"); passage.Text == "" && contents != "" {
		title, text := SplitContents(contents)
		if passage.Title == "" {
			passage.Title = title
		}
		passage.Text = text
	}
	switch {
	case passage.ID == "":
		return forager.Passage{}, errors.New("passage without id: expected the column _id or id")
	case passage.Title == "" && passage.Text == "":
		return forager.Passage{}, fmt.Errorf("passage %s has no text: expected the columns title and text, or contents", passage.ID)
	}
	return passage, nil
}

// Contents joins title and text in Search-R1's form: the title in quotes on
// the first line, the text on the others.
func Contents(passage forager.Passage) string {
	return `"` + strings.ReplaceAll(passage.Title, "\n", " ") + "\"\n" + passage.Text
}

// SplitContents takes Search-R1's contents apart. The first line is the title,
// with or without quotes; contents of a single line that is not in quotes are
// text without title.
func SplitContents(contents string) (title, text string) {
	first, rest, several := strings.Cut(contents, "\n")
	quoted := len(first) >= 2 && first[0] == '"' && first[len(first)-1] == '"'
	switch {
	case quoted:
		return first[1 : len(first)-1], rest
	case several:
		return first, rest
	}
	return "", contents
}
