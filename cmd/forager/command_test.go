package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/eval"
	"github.com/forager-rl/forager/node"
)

func noSignals() <-chan os.Signal { return nil }

func execute(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(args, &out, &errs, noSignals)
	return code, out.String(), errs.String()
}

// Every mistake is one line that says what to do, with the right exit code.
func TestMistakes(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken.jsonl")
	if err := os.WriteFile(broken, []byte("{\"id\":\"a\",\"question\":\"q\",\"answers\":[\"x\"]}\nno JSON\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"trian", 2, `unknown command "forager trian"; did you mean "train"?`},
		{"tasks biuld", 2, `did you mean "build"?`},
		{"train --sed 1", 2, `unknown flag: --sed; see "forager train --help"`},
		{"train now", 2, "takes flags only"},
		{"train --set learner.lag", 2, "want key=value"},
		{"train --steps many", 2, `--steps: got "many", want a whole number, 0 or more`},
		{"train --config " + dir + "/none.yaml", 1, "no such file"},
		{"train --resume " + dir + "/none", 1, "no such file"},
		{"train --set run.root=", 1, "run"},
		{"warmstart", 2, "name one with --out"},
		{"tasks build", 2, "name one with --out"},
		{"tasks check", 2, "nothing to check"},
		{"tasks check --tasks " + broken, 1, "broken.jsonl:2"},
		{"rollouts list", 2, "--run-dir or --file"},
		{"rollouts list --run-dir " + dir, 1, dir},
		{"rollouts show --file x --color blue", 2, `"blue", want auto, always or never`},
		{"labels list", 2, "--run-dir or --file"},
		{"labels list --file x --nats y", 2, "--nats goes with --run-dir"},
		{"labels list --run-dir " + dir, 1, dir},
		{"labels list --file x --value high", 2, "want a number, or a range"},
		{"labels list --file x --failed --value 1", 2, "exclude each other"},
		{"labels show --file x", 2, "takes one label key"},
		{"labels export --file x --out x.csv", 2, "--format arrow, parquet or jsonl"},
		{"labels export --file x", 2, "name one with --out"},
		{"labels audit --run-dir a --judge-url b", 2, "give one"},
		{"labels audit --turns 0", 2, "1 or more"},
		{"labels audit --run-dir a --save b", 2, "--save keeps"},
		{"labels audit --set judge.judge=none", 1, "name one with --judge-url"},
		{"labels audit --model tiny", 1, "endpoints is empty"},
		{"labels rubric check", 2, "takes one rubric"},
		{"labels rubric check helpfulnes", 1, "nearest name is helpfulness"},
		{"labels rubric check " + broken, 1, "broken.jsonl:"},
		{"eval --run-dir a --policy b", 2, "give one"},
		{"voters list", 2, "--run ID --nats nats://host:4222"},
		{"voters add --run a --nats b", 2, "takes one node id"},
		{"voters remove a b", 2, "takes one node id"},
		{"voters transfer a b", 2, "takes one node id"},
		{"actor", 1, "--run"},
		{"status", 1, "name it with --run"},
		{"status --run absent-" + filepath.Base(dir), 1, "name the bus with --nats"},
		{"status --run a --color blue", 2, "want auto, always or never"},
		{"health", 1, "--address HOST:PORT"},
		{"health --address 127.0.0.1:1", 1, "does not answer"},
		{"actor --run a --dir b", 2, "give one of --dir and --run"},
	} {
		code, _, stderr := execute(strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(stderr, c.want) || !strings.HasPrefix(stderr, "forager: ") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("forager %s: exit code %d, want %d; stderr %q, want one line with %q", c.args, code, c.code, stderr, c.want)
		}
	}
}

// Every command has a short text and an example.
func TestHelp(t *testing.T) {
	root := (&app{}).root()
	for _, cmd := range root.Commands() {
		for _, c := range append(cmd.Commands(), cmd) {
			if c.Short == "" || (c.Example == "" && !c.HasSubCommands()) {
				t.Errorf("%s lacks a short text or an example", c.CommandPath())
			}
		}
	}
	if code, out, _ := execute(); code != 0 || !strings.Contains(out, "Train and look:") {
		t.Errorf("forager without arguments: exit code %d\n%s", code, out)
	}
	if code, out, _ := execute("version"); code != 0 || !strings.HasPrefix(out, "forager ") {
		t.Errorf("forager version: exit code %d, %q", code, out)
	}
}

func TestTasksBuildAndCheck(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "worldfacts")
	code, built, stderr := execute("tasks", "build", "--out", dir)
	if code != 0 {
		t.Fatal(stderr)
	}
	code, checked, stderr := execute("tasks", "check", "--tasks", dir+"/tasks.jsonl", "--corpus", dir+"/corpus.jsonl")
	if code != 0 {
		t.Fatal(stderr)
	}
	counts := func(s string) string { return s[strings.Index(s, "data set"):] }
	if counts(built) != counts(checked) {
		t.Errorf("written:\n%s\nread back:\n%s", built, checked)
	}
	_, note, _ := strings.Cut(checked, " passages\n")
	note, _, _ = strings.Cut(note, " gold passages")
	if found, all, _ := strings.Cut(note, " of "); found == "" || found != all {
		t.Errorf("evidence is missing from the corpus: %s", note)
	}
	for _, split := range []string{"train", "dev", "test"} {
		if !strings.Contains(counts(built), split) {
			t.Errorf("no questions of split %s:\n%s", split, built)
		}
	}
}

func TestInterrupts(t *testing.T) {
	signals := make(chan os.Signal)
	drained := make(chan struct{})
	ctx, i := watch(t.Context(), signals, func() { close(drained) }, func(int) {})
	defer i.close()
	signals <- os.Interrupt
	<-drained
	<-i.stop
	if ctx.Err() != nil || i.result(nil) != nil {
		t.Error("the first interrupt cancelled the context")
	}
	signals <- os.Interrupt
	<-ctx.Done()
	if err := i.result(context.Canceled); !errors.Is(err, errInterrupted) {
		t.Errorf("the second interrupt gave %v", err)
	}
}

func TestInterruptWithoutDrain(t *testing.T) {
	signals := make(chan os.Signal)
	exited := make(chan int, 1)
	ctx, i := watch(t.Context(), signals, nil, func(code int) { exited <- code })
	defer i.close()
	signals <- os.Interrupt
	<-ctx.Done()
	if code := <-exited; code != exitInterrupted {
		t.Errorf("a command that hangs ends with %d, want %d", code, exitInterrupted)
	}
}

func TestWriteTrained(t *testing.T) {
	group := func(name string, mean float64) eval.Group {
		return eval.Group{Name: name, Metrics: map[string]eval.Estimate{eval.EM: {Mean: mean, Low: mean - 0.05, High: mean + 0.05}}}
	}
	report := func(shift float64) *eval.Report {
		return &eval.Report{Questions: 750, Confidence: 0.95, Breakdown: eval.Breakdown{
			Overall: group("all", 0.3+shift), ByHops: []eval.Group{group("1", 0.5+shift), group("2", 0.2+shift)},
		}}
	}
	var out bytes.Buffer
	err := writeTrained(&out, node.TrainResult{Dir: "runs/x", Finished: true, Before: report(0), After: report(0.4), Report: "runs/x/report.md"})
	if err != nil {
		t.Fatal(err)
	}
	want := `
exact match on 750 held-out questions, with 95 % intervals
         before                 after
1 hop    0.500 [0.450, 0.550]   0.900 [0.850, 0.950]
2 hops   0.200 [0.150, 0.250]   0.600 [0.550, 0.650]
all      0.300 [0.250, 0.350]   0.700 [0.650, 0.750]

report: runs/x/report.md

next:
  forager eval --run-dir runs/x --split dev
  forager rollouts show --run-dir runs/x
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
}

func TestEvalTasks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "t.jsonl")
	rows := `{"id":"a","question":"q","answers":["x"],"split":"dev"}
{"id":"b","question":"q","answers":["x"]}
`
	if err := os.WriteFile(file, []byte(rows), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg := node.DefaultConfig()
	cfg.Data.Tasks = file
	all, err := evalTasks(cfg, false)
	if err != nil || len(all) != 2 {
		t.Errorf("without --split: %d tasks, %v", len(all), err)
	}
	cfg.Eval.Split = string(forager.Dev)
	if dev, err := evalTasks(cfg, true); err != nil || len(dev) != 2 { // rows without a split belong to any
		t.Errorf("--split dev: %d tasks, %v", len(dev), err)
	}
	cfg.Eval.Split = string(forager.Test)
	if test, err := evalTasks(cfg, true); err != nil || len(test) != 1 {
		t.Errorf("--split test: %d tasks, %v", len(test), err)
	}
}
