package node

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/batch"
	"github.com/forager-rl/forager/search"
	"github.com/forager-rl/forager/search/worldfacts"
)

// dataset is the tasks of a run by id and by split.
type dataset struct {
	byID  map[string]forager.Task
	order []forager.Task
}

// Task implements actor.Tasks and rewardsrv.Tasks.
func (d *dataset) Task(id string) (forager.Task, error) {
	t, ok := d.byID[id]
	if !ok {
		return forager.Task{}, fmt.Errorf("task %q: %w", id, forager.ErrNotFound)
	}
	return t, nil
}

func (d *dataset) split(s forager.Split) []forager.Task {
	var list []forager.Task
	for _, t := range d.order {
		if t.Split == s {
			list = append(list, t)
		}
	}
	return list
}

func (d *dataset) add(tasks []forager.Task) error {
	for _, t := range tasks {
		if _, twice := d.byID[t.ID]; twice {
			return fmt.Errorf("task %q occurs twice", t.ID)
		}
		d.byID[t.ID] = t
		d.order = append(d.order, t)
	}
	return nil
}

// loadTasks reads the training and held-out questions.
func loadTasks(c *Config) (*dataset, error) {
	d := &dataset{byID: map[string]forager.Task{}}
	if c.Data.Tasks == "" {
		tasks, _, err := worldfacts.Build()
		if err != nil {
			return nil, fmt.Errorf("build the world-facts tasks: %w", err)
		}
		return d, d.add(tasks)
	}
	tasks, err := ReadTasks(c.Data.Tasks, forager.Train)
	if err != nil {
		return nil, err
	}
	if err := d.add(tasks); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Data.Tasks, err)
	}
	if c.Data.EvalTasks != "" {
		held, err := ReadTasks(c.Data.EvalTasks, forager.Split(c.Eval.Split))
		if err != nil {
			return nil, err
		}
		for i := range held {
			held[i].Split = forager.Split(c.Eval.Split)
		}
		if err := d.add(held); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Data.EvalTasks, err)
		}
	}
	return d, nil
}

// ReadTasks reads questions from JSONL or, by its ending, Parquet. Rows that
// name no split get the given one.
func ReadTasks(path string, split forager.Split) ([]forager.Task, error) {
	defaults := search.TaskDefaults{Dataset: strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)), Split: split}
	if !strings.EqualFold(filepath.Ext(path), ".parquet") {
		return search.ReadTasks(path, defaults)
	}
	var tasks []forager.Task
	err := batch.ReadParquet(path, func(n int, row map[string]any) error {
		t, err := search.TaskFromRow(row, defaults)
		if err == nil {
			err = t.Validate()
		}
		if err != nil {
			return fmt.Errorf("%s: row %d: %w", path, n, err)
		}
		tasks = append(tasks, t)
		return nil
	})
	return tasks, err
}

// loadCorpus reads the passages.
func loadCorpus(c *Config) ([]forager.Passage, error) {
	switch {
	case c.Data.EmptyCorpus:
		return nil, nil
	case c.Data.Corpus == "":
		_, corpus, err := worldfacts.Build()
		return corpus, err
	}
	return search.ReadCorpus(c.Data.Corpus)
}

// nothing is the retriever of an empty corpus.
type nothing struct{}

// Search finds nothing.
func (nothing) Search(_ context.Context, queries []string, _ int) ([][]forager.Passage, error) {
	return make([][]forager.Passage, len(queries)), nil
}

// openIndex builds the retriever over the corpus; closing it frees the index.
func openIndex(ctx context.Context, c *Config) (search.Retriever, int, func() error, error) {
	corpus, err := loadCorpus(c)
	if err != nil {
		return nil, 0, nil, err
	}
	if c.Data.EmptyCorpus {
		return nothing{}, 0, func() error { return nil }, nil
	}
	index, err := search.NewBM25(ctx, corpus, c.Search.BM25)
	if err != nil {
		return nil, 0, nil, fmt.Errorf("index the corpus: %w", err)
	}
	return index, len(corpus), index.Close, nil
}
