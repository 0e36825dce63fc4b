package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/internal/wholefile"
	"github.com/forager-rl/forager/rewardsrv/rubric"
)

// Turn is what is put to the judge, with the label that is right.
type Turn struct {
	rubric.Item
	Gold float64
}

// line is a turn in a gold file, one JSON object a line. Task is the id of a
// known task or a task as task files have it; Other makes it a comparison of two
// turns, with label 1 when the first is better, 0 the second, 0.5 neither.
type line struct {
	Task        json.RawMessage   `json:"task"`
	Question    string            `json:"question,omitempty"` // absent: the task's
	Query       string            `json:"query"`
	Passages    []forager.Passage `json:"passages"`
	Observation string            `json:"observation,omitempty"`
	Earlier     []string          `json:"earlier,omitempty"`
	Answer      string            `json:"answer,omitempty"`
	Other       *step             `json:"other,omitempty"`
	Label       *float64          `json:"label"`
}

type step struct {
	Query       string            `json:"query"`
	Passages    []forager.Passage `json:"passages"`
	Observation string            `json:"observation,omitempty"`
	Earlier     []string          `json:"earlier,omitempty"`
}

// maxLine bounds one line of a gold file, in bytes.
const maxLine = 16 << 20

// ReadGold reads a gold file. Tasks that lines name by id are looked up in
// tasks. Unknown fields are left alone; an error names file and line.
func ReadGold(path string, tasks map[string]forager.Task) ([]Turn, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read gold labels: %w", err)
	}
	defer file.Close() // only read from
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, maxLine)
	var turns []Turn
	n := 0
	for scanner.Scan() {
		n++
		text := bytes.TrimSpace(scanner.Bytes())
		if len(text) == 0 {
			continue
		}
		turn, err := readTurn(text, tasks)
		if err != nil {
			return nil, fmt.Errorf("read gold labels: %s:%d: %w", path, n, err)
		}
		turns = append(turns, turn)
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("read gold labels: %s:%d: %w", path, n+1, err)
	}
	if len(turns) == 0 {
		return nil, forager.WithHint(fmt.Errorf("read gold labels: %s holds none", path),
			"write one JSON object a line with task, question, query, passages and label")
	}
	return turns, nil
}

func readTurn(text []byte, tasks map[string]forager.Task) (Turn, error) {
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return Turn{}, fmt.Errorf("not a turn: %w", err)
	}
	task, err := l.task(tasks)
	switch {
	case err != nil:
		return Turn{}, err
	case l.Label == nil:
		return Turn{}, errors.New("no label")
	case math.IsNaN(*l.Label) || math.IsInf(*l.Label, 0):
		return Turn{}, fmt.Errorf("label %v", *l.Label)
	}
	if l.Question == "" {
		l.Question = task.Question
	}
	if l.Question == "" {
		return Turn{}, errors.New("neither the line nor its task has a question")
	}
	item := rubric.Item{
		Task: task, Question: l.Question, Answer: l.Answer,
		Step: rubric.Step{Query: l.Query, Passages: l.Passages, Observation: l.Observation, Earlier: l.Earlier},
	}
	if l.Other != nil {
		other := rubric.Step(*l.Other)
		item.Other = &other
	}
	return newTurn(item, *l.Label), nil
}

// task gives the task of a line: one named by its id that is not known has
// nothing but id and question.
func (l *line) task(tasks map[string]forager.Task) (forager.Task, error) {
	var id string
	if len(l.Task) == 0 {
		return forager.Task{}, errors.New("no task; give its id, or an object with id and answers")
	}
	if err := json.Unmarshal(l.Task, &id); err != nil {
		var t forager.Task
		if err := json.Unmarshal(l.Task, &t); err != nil {
			return forager.Task{}, fmt.Errorf("task is neither an id nor a task: %w", err)
		}
		return t, nil
	}
	if t, ok := tasks[id]; ok {
		return t, nil
	}
	return forager.Task{ID: id, Question: l.Question}, nil
}

// newTurn gives an item a key of its own.
func newTurn(item rubric.Item, gold float64) Turn {
	parts := []string{item.Task.ID, item.Question, item.Query, forager.ObservationKey(item.Passages), item.Answer}
	if item.Other != nil {
		parts = append(parts, item.Other.Query, forager.ObservationKey(item.Other.Passages))
	}
	item.Key = forager.Digest(parts...)
	return Turn{Item: item, Gold: gold}
}

// WriteOutcomes writes turns with what the judge said of them as JSONL: the
// lines of a gold file, with value (null where there is none), rationale, error
// and judgement added. The file appears whole or not at all.
func WriteOutcomes(path string, outcomes []Outcome) error {
	err := wholefile.Write(path, func(f *os.File) error {
		out := bufio.NewWriter(f)
		encoder := json.NewEncoder(out)
		for _, o := range outcomes {
			if err := o.encode(encoder); err != nil {
				return err
			}
		}
		return out.Flush()
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func (o Outcome) encode(encoder *json.Encoder) error {
	task, err := json.Marshal(o.Turn.Task)
	if err != nil {
		return err
	}
	row := struct {
		line
		Value     *float64          `json:"value"`
		Rationale string            `json:"rationale,omitempty"`
		Error     string            `json:"error,omitempty"`
		Judgement forager.Judgement `json:"judgement,omitzero"`
	}{
		line: line{
			Task: task, Question: o.Turn.Question, Query: o.Turn.Query, Passages: o.Turn.Passages, Observation: o.Turn.Observation,
			Earlier: o.Turn.Earlier, Answer: o.Turn.Answer, Other: (*step)(o.Turn.Other), Label: &o.Turn.Gold,
		},
		Value: o.Value, Rationale: o.Rationale, Judgement: o.Judgement,
	}
	if o.Err != nil {
		row.Error = o.Err.Error()
	}
	return encoder.Encode(row)
}
