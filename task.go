package forager

import (
	"errors"
	"fmt"
)

// Split names the part of a data set that a task belongs to.
type Split string

// The splits of a data set. Only Train tasks are learned from; recipes are
// chosen on Dev and reported on Test.
const (
	Train Split = "train"
	Dev   Split = "dev"
	Test  Split = "test"
)

// Task is one question together with everything needed to score an answer.
// Gold answers, passages and decomposition are never shown to the policy.
type Task struct {
	ID       string   `json:"id"`
	Dataset  string   `json:"dataset"`
	Split    Split    `json:"split"`
	Question string   `json:"question"`
	Answers  []string `json:"answers"` // any of them counts as right

	// Prompt is set when the data row carries its own prompt (verl form); it
	// is then used as it stands instead of the configured template.
	Prompt []Message `json:"prompt,omitempty"`

	Type          string   `json:"type,omitempty"`        // bridge, comparison, intersection, ...
	Hops          int      `json:"hops,omitempty"`        // 0 when unknown
	Gold          []string `json:"gold,omitempty"`        // ids of the passages that hold the evidence
	GoldTitles    []string `json:"gold_titles,omitempty"` // titles of the same; ids differ between dumps
	Decomposition []Hop    `json:"decomposition,omitempty"`
}

// Message is one chat message of a prompt.
type Message struct {
	Role    string `json:"role"` // system, user or assistant
	Content string `json:"content"`
}

// Hop is one step of a task's decomposition: a sub-question, its answer and,
// where known, the passage that holds it.
type Hop struct {
	Question string `json:"question"`
	Answer   string `json:"answer"`
	Gold     string `json:"gold,omitempty"`
	Query    string `json:"query,omitempty"` // a query that finds the passage, where one is known
}

// Validate reports what makes the task unusable, or nil. A task needs an id, a
// question (or a prompt of its own) and at least one non-empty answer.
func (t *Task) Validate() error {
	switch {
	case t.ID == "":
		return errors.New("task without id")
	case t.Question == "" && len(t.Prompt) == 0:
		return fmt.Errorf("task %s has neither question nor prompt", t.ID)
	case len(t.Answers) == 0:
		return fmt.Errorf("task %s has no answers", t.ID)
	}
	for _, a := range t.Answers {
		if a == "" {
			return fmt.Errorf("task %s has an empty answer", t.ID)
		}
	}
	return nil
}

// Passage is one retrievable document, or one search result when Score is set.
type Passage struct {
	ID    string  `json:"id"`
	Title string  `json:"title"`
	Text  string  `json:"text"`
	Score float64 `json:"score,omitempty"`
}
