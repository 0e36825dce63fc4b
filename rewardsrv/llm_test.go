package rewardsrv

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/forager-rl/forager/rewardsrv/judge"
	"github.com/forager-rl/forager/rewardsrv/judge/judgetest"
)

func askLLM(url string, rubrics ...string) func(*Config, *Deps) {
	return func(c *Config, d *Deps) {
		d.Judges = nil
		c.Judge, c.LLM.Model, c.LLM.Endpoints = JudgeLLM, "m", []judge.EndpointConfig{{BaseURL: url}}
		c.LLM.StructuredOutput, c.LLM.Retries = judge.StructuredOff, 0
		if len(rubrics) > 0 {
			c.Rubrics = rubrics
		}
	}
}

// sensible answers a prompt of the rubric helpfulness: helpful when the passages
// mention Belgium.
func sensible(c judgetest.Call) judgetest.Reply {
	m := regexp.MustCompile(`(\w+): (\w+) or \w+: (\w+):$`).FindStringSubmatch(c.User)
	if m == nil { // asked for its models
		return judgetest.Reply{}
	}
	word := m[3]
	if strings.Contains(c.User, "Belgium") {
		word = m[2]
	}
	return judgetest.Reply{Text: "The passage links the beer to Belgium.\n\n" + m[1] + ": " + word, PromptTokens: 70, CompletionTokens: 9}
}

// TestLLMJudge runs the whole server against an endpoint: its labels can be
// traced, and answers that are no labels are asked for once more.
func TestLLMJudge(t *testing.T) {
	e := judgetest.New(t, func(c judgetest.Call) judgetest.Reply {
		if strings.Contains(c.User, "gibberish") {
			return judgetest.Reply{Text: "Oui, c'est utile."}
		}
		return sensible(c)
	})
	s := newStream()
	r := start(t, s, nil, askLLM(e.BaseURL()))
	for i, text := range []string{"Chimay comes from Belgium.", "A town.", "gibberish"} {
		d := digestOf("r", i, text)
		d.Passages[0].Text = text
		s.digests <- d
	}
	await(t, "labels", func() bool { return len(s.labels()) == 3 })
	r.stop()
	for _, a := range s.labels() {
		j := a.Judgement
		if a.Judge != "llm:m" || a.Source != "helpfulness" || !strings.HasPrefix(a.Rubric, "sha256:") || a.Latency <= 0 ||
			j.PromptDigest == "" || j.Endpoint != e.BaseURL() || j.Model != "m" || j.Answer == "" || j.TaskID != "bridge" || j.Observation != "o" {
			t.Errorf("%+v", a)
		}
		if strings.Contains(a.Rationale, "Belgium") { // an answer of the task
			t.Errorf("rationale %q", a.Rationale)
		}
		switch want := float64(1 - a.Turn); {
		case a.Turn == 2:
			if a.Value != nil || j.Answer != "Oui, c'est utile." {
				t.Errorf("no label: %+v", a)
			}
		case a.Value == nil || *a.Value != want || j.PromptTokens != 70 || j.CompletionTokens != 9:
			t.Errorf("want %v: %+v", want, a)
		}
	}
	if e.Calls() != 4 {
		t.Errorf("%d calls", e.Calls())
	}
}

// TestRubricIsEdited: the label key changes with the file, without a restart.
func TestRubricIsEdited(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mine.yaml")
	write := func(instructions string) {
		text := "name: mine\nkind: helpfulness\ninstructions: " + instructions +
			"\nlabels:\n  - {name: good, value: 1, when: it is good}\n  - {name: bad, value: 0, when: it is bad}\n"
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("Decide.")
	synctest.Test(t, func(t *testing.T) {
		config, deps := DefaultConfig(), testDeps(t, newStream(), nil, nil)
		askLLM("http://judge/v1", path)(&config, &deps)
		judges, err := NewJudges(config, deps)
		if err != nil {
			t.Fatal(err)
		}
		s := newStream()
		r := start(t, s, nil, func(_ *Config, d *Deps) { d.Judges = judges })
		before := judges[0].Current()
		write("Decide well.")
		time.Sleep(3 * rubricInterval)
		after := judges[0].Current()
		r.stop()
		if judges[0].Source() != "mine" || before.Rubric() == after.Rubric() || before.Judge() != after.Judge() {
			t.Errorf("%s: %s, then %s", judges[0].Source(), before.Rubric(), after.Rubric())
		}
		d := digestOf("r", 0, "x")
		if turnItem(before, d).Key == turnItem(after, d).Key {
			t.Error("the key is the same")
		}
	})
}

// TestJudgeIsDownAtStart: the server starts, says so, and labels when it is back.
func TestJudgeIsDownAtStart(t *testing.T) {
	e := judgetest.New(t, judgetest.Says("x"))
	e.Close()
	s := newStream()
	r := start(t, s, nil, askLLM(e.BaseURL()))
	s.digests <- digestOf("r", 0, "x")
	await(t, "a look at the judge", func() bool { return r.Stats().JudgeDown || r.Stats().Judged[resultError] > 0 })
	r.stop()
	if !strings.Contains(r.log.String(), "judge is not ready") || len(s.labels()) != 0 {
		t.Errorf("a dead endpoint at start is not reported:\n%s", r.log)
	}
}

// TestWrongKey: one clear message, and hardly any calls.
func TestWrongKey(t *testing.T) {
	e := judgetest.New(t, judgetest.Fails(http.StatusUnauthorized, "bad key"))
	s := newStream()
	r := start(t, s, nil, askLLM(e.BaseURL()))
	for i := range 50 {
		s.digests <- digestOf("r", i, string(rune('a'+i)))
	}
	await(t, "a refusal", func() bool { return r.Stats().JudgeDown })
	time.Sleep(200 * time.Millisecond) // a storm would show
	r.stop()
	if n := strings.Count(r.log.String(), "level=WARN") + strings.Count(r.log.String(), "level=ERROR"); n > 3 {
		t.Errorf("%d messages:\n%s", n, r.log)
	}
	t.Log(r.log)
	if e.Calls() > 8 || len(s.labels()) != 0 || r.Stats().Queued == 0 {
		t.Errorf("%d calls, %d labels, %+v", e.Calls(), len(s.labels()), r.Stats())
	}
}

func TestRubricsAreTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mine.yaml")
	if err := os.WriteFile(path, []byte("name: helpfulness\nkind: helpfulness\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, rubrics := range map[string][]string{"broken": {path}, "unknown": {"no such"}, "twice": {"helpfulness", "helpfulness"}} {
		config, deps := DefaultConfig(), testDeps(t, newStream(), nil, nil)
		askLLM("http://127.0.0.1:1/v1", rubrics...)(&config, &deps)
		if _, err := New(config, deps); err == nil {
			t.Errorf("%s passes", name)
		} else {
			t.Log(err)
		}
	}
}
