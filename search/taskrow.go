package search

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/forager-rl/forager"
)

// TaskFromRow makes a task of one row of a data set, decoded from JSON or
// Parquet into Go values. These forms are understood, by the names of their
// columns:
//
//   - Forager's own: the JSON of forager.Task; 2WikiMultihopQA's evidences
//     (subject, relation, object) stand in for a missing decomposition
//   - FlashRAG: id, question, golden_answers, metadata
//   - verl and Search-R1: data_source, prompt, reward_model.ground_truth,
//     extra_info; the row's own prompt is kept and used as it stands
//   - SkyRL: as verl, with reward_spec in place of reward_model
//   - Tongyi DeepResearch: question, answer
//
// A row without id gets one from its data set, split and extra_info.index, or
// else from its question, so that the same row gets the same id everywhere.
func TaskFromRow(row map[string]any, defaults TaskDefaults) (forager.Task, error) {
	columns := record{row}
	extra := columns.record("extra_info")
	task := forager.Task{
		Dataset:    strings.TrimPrefix(columns.text("dataset", "data_source"), "searchR1_"),
		Question:   strings.TrimSpace(columns.text("question")),
		Type:       columns.text("type"),
		Hops:       columns.integer("hops"),
		Gold:       columns.texts("gold"),
		GoldTitles: columns.texts("gold_titles"),
	}
	if task.Dataset == "" {
		task.Dataset = defaults.Dataset
	}
	if task.Question == "" {
		task.Question = strings.TrimSpace(extra.text("question"))
	}
	metadata := columns.record("metadata")
	if task.Type == "" {
		task.Type = metadata.text("type")
	}
	if len(task.GoldTitles) == 0 {
		task.GoldTitles = unique(metadata.record("supporting_facts").texts("title"))
	}

	var err error
	if task.Prompt, err = columns.messages("prompt"); err != nil {
		return forager.Task{}, err
	}
	if task.Question == "" && len(task.Prompt) > 0 {
		task.Question = questionOf(task.Prompt)
	}
	if task.Question == "" {
		return forager.Task{}, errors.New("task has neither question nor prompt")
	}
	split := columns.text("split")
	if split == "" {
		split = extra.text("split")
	}
	if task.Split, err = parseSplit(split, defaults.Split); err != nil {
		return forager.Task{}, err
	}
	task.ID = rowID(columns, extra, task)
	if task.Answers, err = columns.answers(); err != nil {
		return forager.Task{}, fmt.Errorf("task %s: %w", task.ID, err)
	}
	if task.Decomposition, err = columns.hops(); err != nil {
		return forager.Task{}, fmt.Errorf("task %s: %w", task.ID, err)
	}
	if err := task.Validate(); err != nil {
		return forager.Task{}, err
	}
	return task, nil
}

// rowID is the row's own id, made unique across the data sets of a mixed verl
// file, which number their rows alike.
func rowID(columns, extra record, task forager.Task) string {
	id := columns.text("id", "_id")
	if source := columns.text("data_source"); source != "" {
		if id == "" {
			if index := extra.text("index"); index != "" {
				id = string(task.Split) + "_" + index
			}
		}
		if id != "" {
			return task.Dataset + "/" + id
		}
	}
	if id != "" {
		return id
	}
	digest := sha256.Sum256([]byte(task.Dataset + "\x00" + task.Question))
	return "q" + hex.EncodeToString(digest[:6])
}

// parseSplit understands the names in use for the three splits.
func parseSplit(name string, fallback forager.Split) (forager.Split, error) {
	switch strings.ToLower(name) {
	case "":
		return fallback, nil
	case "train":
		return forager.Train, nil
	case "dev", "val", "valid", "validation":
		return forager.Dev, nil
	case "test":
		return forager.Test, nil
	}
	return "", fmt.Errorf("unknown split %q: expected train, dev or test", name)
}

// questionOf finds the question inside a prompt that carries its own
// instructions: what follows the last "Question:" of the last user message,
// or else the whole message.
func questionOf(prompt []forager.Message) string {
	content := ""
	for _, message := range prompt {
		if message.Role == "user" {
			content = message.Content
		}
	}
	if i := strings.LastIndex(content, "Question:"); i >= 0 {
		content = content[i+len("Question:"):]
	}
	return strings.TrimSpace(content)
}

func unique(texts []string) []string {
	var kept []string
	seen := make(map[string]bool, len(texts))
	for _, text := range texts {
		if !seen[text] {
			seen[text] = true
			kept = append(kept, text)
		}
	}
	return kept
}
