package search

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/forager-rl/forager"
)

// write makes a file in a temporary folder.
func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTaskForms(t *testing.T) {
	prompt := []forager.Message{{Role: "user", Content: "Answer with tags.\nQuestion: who wrote it?\n"}}
	for name, c := range map[string]struct {
		row  string
		want forager.Task
	}{
		"own": {
			`{"id":"1","dataset":"w","split":"dev","question":"q?","answers":["a","b"],"type":"bridge","hops":2,"gold":["p1"],"gold_titles":["T"],"decomposition":[{"question":"s","answer":"x","gold":"p1"}]}`,
			forager.Task{ID: "1", Dataset: "w", Split: forager.Dev, Question: "q?", Answers: []string{"a", "b"}, Type: "bridge", Hops: 2, Gold: []string{"p1"}, GoldTitles: []string{"T"}, Decomposition: []forager.Hop{{Question: "s", Answer: "x", Gold: "p1"}}},
		},
		"closed_multihop with evidences": {
			`{"id":"1","question":"q?","answers":["a"],"hops":2,"split":"dev","evidences":[["A","director","B"],["B","born in","C"]],"context":["p1"]}`,
			forager.Task{ID: "1", Dataset: "default", Split: forager.Dev, Question: "q?", Answers: []string{"a"}, Hops: 2, Decomposition: []forager.Hop{{Question: "A: director", Answer: "B"}, {Question: "B: born in", Answer: "C"}}},
		},
		"StrategyQA": {
			`{"id":"1","question":"q?","answers":["no"],"decomposition":["s1","s2"]}`,
			forager.Task{ID: "1", Dataset: "default", Split: forager.Train, Question: "q?", Answers: []string{"no"}, Decomposition: []forager.Hop{{Question: "s1"}, {Question: "s2"}}},
		},
		"FlashRAG": {
			`{"id":"dev_3","question":"q?","golden_answers":["a"],"metadata":{"type":"comparison","supporting_facts":{"title":["X","Y","X"],"sent_id":[0,1,2]}}}`,
			forager.Task{ID: "dev_3", Dataset: "default", Split: forager.Train, Question: "q?", Answers: []string{"a"}, Type: "comparison", GoldTitles: []string{"X", "Y"}},
		},
		"verl": {
			`{"data_source":"searchR1_nq","prompt":[{"role":"user","content":"Answer with tags.\nQuestion: who wrote it?\n"}],"ability":"fact-reasoning","reward_model":{"style":"rule","ground_truth":{"target":["a","b"]}},"extra_info":{"split":"test","index":12}}`,
			forager.Task{ID: "nq/test_12", Dataset: "nq", Split: forager.Test, Question: "who wrote it?", Answers: []string{"a", "b"}, Prompt: prompt},
		},
		"verl with question and id": {
			`{"id":"train_0","data_source":"nq","question":"q?","prompt":"as it stands","golden_answers":["a"],"reward_model":{"ground_truth":{"target":["b"]}},"extra_info":{"split":"validation","question":"other"}}`,
			forager.Task{ID: "nq/train_0", Dataset: "nq", Split: forager.Dev, Question: "q?", Answers: []string{"a"}, Prompt: []forager.Message{{Role: "user", Content: "as it stands"}}},
		},
		"SkyRL": {
			`{"data_source":"hotpotqa","env_class":"search","prompt":[{"role":"user","content":"Answer with tags.\nQuestion: who wrote it?\n"}],"reward_spec":{"method":"rule","ground_truth":{"target":"a"}},"extra_info":{"split":"train","index":0,"question":"q?"}}`,
			forager.Task{ID: "hotpotqa/train_0", Dataset: "hotpotqa", Split: forager.Train, Question: "q?", Answers: []string{"a"}, Prompt: prompt},
		},
		"Tongyi, numeric answer": {
			`{"question":" q? ","answer":1912}`,
			forager.Task{ID: "q603152a70bd8", Dataset: "default", Split: forager.Train, Question: "q?", Answers: []string{"1912"}},
		},
	} {
		tasks, err := ReadTasks(write(t, "tasks.jsonl", "\n"+c.row+"\n"), TaskDefaults{Dataset: "default", Split: forager.Train})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !reflect.DeepEqual(tasks[0], c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, tasks[0], c.want)
		}
	}
}

// Parquet readers give Go's own number and list types.
func TestTaskFromTypedRow(t *testing.T) {
	task, err := TaskFromRow(map[string]any{
		"data_source":  "nq",
		"prompt":       []map[string]any{{"role": "user", "content": "Question: q?"}},
		"reward_model": map[string]any{"ground_truth": map[string]any{"target": []string{"a"}}},
		"extra_info":   map[string]any{"index": int64(3), "split": []byte("train")},
		"hops":         int32(2),
	}, TaskDefaults{})
	want := forager.Task{
		ID: "nq/train_3", Dataset: "nq", Split: forager.Train, Question: "q?", Answers: []string{"a"}, Hops: 2,
		Prompt: []forager.Message{{Role: "user", Content: "Question: q?"}},
	}
	if err != nil || !reflect.DeepEqual(task, want) {
		t.Errorf("%+v, %v", task, err)
	}
}

func TestBadTasks(t *testing.T) {
	const good = `{"id":"1","question":"q","answers":["a"]}` + "\n"
	for text, want := range map[string]string{
		good + "{not json": "tasks.jsonl:2: not JSON",
		good + `[1]`:       "tasks.jsonl:2: not JSON",
		good + `null`:      "tasks.jsonl:2: not JSON",
		good + `{} {}`:     "tasks.jsonl:2: not JSON: more than one value",
		good + good:        `tasks.jsonl:2: task id "1" occurs twice, first on line 1`,
		good + "\n" + `{"id":"2","question":"q"}`:                           "tasks.jsonl:3: task 2: no answers: expected one of",
		`{"id":"2","question":"q","answers":[]}`:                            "tasks.jsonl:1: task 2: no answers: column answers holds no text",
		`{"id":"2","question":"q","answers":[" "]}`:                         "no answers",
		`{"id":"2","question":"q","reward_model":{"ground_truth":{}}}`:      "no answers: column reward_model.ground_truth.target",
		`{"id":"2","answers":["a"]}`:                                        "neither question nor prompt",
		`{"id":"2","question":"q","answers":["a"],"split":"later"}`:         `unknown split "later"`,
		`{"id":"2","question":"q","answers":["a"],"prompt":[{"role":"u"}]}`: "prompt[0]: expected an object with role and content",
		`{"id":"2","question":"q","answers":["a"],"decomposition":[["x"]]}`: "decomposition[0]",
		"": "holds no tasks",
		`{"id":"1","question":"` + strings.Repeat("x", maxLine) + `"}`: "tasks.jsonl:1: line is longer than 16 MB",
	} {
		if _, err := ReadTasks(write(t, "tasks.jsonl", text), TaskDefaults{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: got %v, want %q", text, err, want)
		}
	}
	if _, err := ReadTasks(filepath.Join(t.TempDir(), "absent.jsonl"), TaskDefaults{}); err == nil || !strings.Contains(err.Error(), "absent.jsonl") {
		t.Errorf("absent file: %v", err)
	}
	if _, err := ReadTasks(write(t, "tasks.jsonl.gz", "plain"), TaskDefaults{}); err == nil || !strings.Contains(err.Error(), "not gzip") {
		t.Errorf("plain text named gz: %v", err)
	}
}

func TestTasksRoundTrip(t *testing.T) {
	tasks := []forager.Task{
		{ID: "1", Dataset: "d", Split: forager.Test, Question: strings.Repeat("long <&> ", 500_000), Answers: []string{"a"}},
		{ID: "2", Dataset: "d", Split: forager.Train, Question: "q", Answers: []string{"a"}, Prompt: []forager.Message{{Role: "system", Content: "c"}}, Hops: 3, Decomposition: []forager.Hop{{Question: "s", Answer: "x"}}},
	}
	tasks[0].Question = strings.TrimSpace(tasks[0].Question)
	for _, name := range []string{"tasks.jsonl", "tasks.jsonl.gz"} {
		path := filepath.Join(t.TempDir(), name)
		if err := WriteTasks(path, tasks); err != nil {
			t.Fatal(err)
		}
		got, err := ReadTasks(path, TaskDefaults{})
		if err != nil || !reflect.DeepEqual(got, tasks) {
			t.Errorf("%s: %v, %d tasks", name, err, len(got))
		}
		for _, bad := range [][]forager.Task{{{ID: "3"}}, {tasks[1], tasks[1]}} {
			if err := WriteTasks(path, bad); err == nil {
				t.Errorf("%v was written", bad)
			}
		}
		if again, err := ReadTasks(path, TaskDefaults{}); err != nil || len(again) != 2 {
			t.Errorf("a failed write changed the file: %v", err)
		}
		if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
			t.Errorf("files left behind: %v", left)
		}
	}
}

// Every field of a task survives the file, those added later too.
func TestTasksRoundTripIsComplete(t *testing.T) {
	hop := forager.Hop{Question: "s", Answer: "x", Gold: "p1", Query: "q"}
	task := forager.Task{
		ID: "1", Dataset: "d", Split: forager.Dev, Question: "q?", Answers: []string{"a"}, Prompt: []forager.Message{{Role: "user", Content: "c"}},
		Type: "bridge", Hops: 2, Gold: []string{"p1"}, GoldTitles: []string{"T"}, Decomposition: []forager.Hop{hop},
	}
	for _, value := range []reflect.Value{reflect.ValueOf(task), reflect.ValueOf(hop)} {
		for i := range value.NumField() {
			if value.Field(i).IsZero() {
				t.Errorf("this test leaves %s.%s empty", value.Type(), value.Type().Field(i).Name)
			}
		}
	}
	path := filepath.Join(t.TempDir(), "tasks.jsonl")
	if err := WriteTasks(path, []forager.Task{task}); err != nil {
		t.Fatal(err)
	}
	got, err := ReadTasks(path, TaskDefaults{})
	if err != nil || !reflect.DeepEqual(got[0], task) {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, task)
	}
}

func FuzzTaskRow(f *testing.F) {
	f.Add(`{"id":"1","question":"q","answers":["a"]}`)
	f.Add(`{"data_source":"nq","prompt":[{"role":"user","content":"Question: x"}],"reward_model":{"ground_truth":{"target":["a"]}},"extra_info":{"index":1}}`)
	f.Add(`{"question":{},"answer":[null,1],"evidences":[["a","b"]]}`)
	f.Fuzz(func(t *testing.T, text string) {
		row, err := decodeObject([]byte(text))
		if err != nil {
			return
		}
		task, err := TaskFromRow(row, TaskDefaults{})
		if err != nil {
			return
		}
		if err := task.Validate(); err != nil {
			t.Errorf("%s gave an unusable task: %v", text, err)
		}
	})
}
