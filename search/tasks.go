package search

import (
	"fmt"

	"github.com/forager-rl/forager"
)

// TaskDefaults fills what a row does not say about its task.
type TaskDefaults struct {
	Dataset string
	Split   forager.Split
}

// ReadTasks reads a JSONL file of tasks, one object a line, packed when its
// name ends in .gz. TaskFromRow says which forms of rows are understood; one
// file may mix them. An error names file and line. A file without tasks, a
// task without answers and an id that occurs twice are errors.
func ReadTasks(path string, defaults TaskDefaults) ([]forager.Task, error) {
	var tasks []forager.Task
	lines := make(map[string]int)
	err := eachLine(path, func(line int, text []byte) error {
		row, err := decodeObject(text)
		if err != nil {
			return err
		}
		task, err := TaskFromRow(row, defaults)
		if err != nil {
			return err
		}
		if first, ok := lines[task.ID]; ok {
			return fmt.Errorf("task id %q occurs twice, first on line %d", task.ID, first)
		}
		lines[task.ID] = line
		tasks = append(tasks, task)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read tasks: %w", err)
	}
	if len(tasks) == 0 {
		return nil, forager.WithHint(fmt.Errorf("read tasks: %s holds no tasks", path),
			"write one JSON object a line with question and answers")
	}
	return tasks, nil
}

// WriteTasks writes tasks in the form that ReadTasks reads back unchanged. The
// file appears whole or not at all; the task at fault is named when one is
// unusable.
func WriteTasks(path string, tasks []forager.Task) error {
	seen := make(map[string]bool, len(tasks))
	for i := range tasks {
		if err := tasks[i].Validate(); err != nil {
			return fmt.Errorf("write tasks: %w", err)
		}
		if seen[tasks[i].ID] {
			return fmt.Errorf("write tasks: task id %q occurs twice", tasks[i].ID)
		}
		seen[tasks[i].ID] = true
	}
	return writeLines(path, tasks)
}
