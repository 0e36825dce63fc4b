package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/forager-rl/forager/cmd/forager/internal/settings"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrecedence(t *testing.T) {
	base := write(t, "run.yaml", "learner: {steps: 11, lag: 3, group_size: 4, time_limit: 1m}\nrun: {seed: 5}\n")
	file := write(t, "forager.yaml", "learner: {steps: 12, group_size: 6, time_limit: 2m}\n")
	t.Setenv("FORAGER_LEARNER_GROUP_SIZE", "8")
	t.Setenv("FORAGER_LEARNER_TIME_LIMIT", "3m")
	t.Setenv("FORAGER_LEARNER_DECAY", "") // counts as not set
	c, err := sources{
		files:     []string{base, file},
		overrides: []override{{"learner.time_limit", "4m", "--set"}, {"Learner.Time_Limit", "5m", "--time-limit"}},
	}.load()
	if err != nil {
		t.Fatal(err)
	}
	defaults := defaultConfig()
	if c.Learner.Decay != defaults.Learner.Decay {
		t.Errorf("default: decay is %q", c.Learner.Decay)
	}
	if c.Run.Seed != 5 || c.Learner.Lag != 3 {
		t.Errorf("first file: seed %d, lag %d", c.Run.Seed, c.Learner.Lag)
	}
	if c.Learner.Steps != 12 {
		t.Errorf("second file: steps %d", c.Learner.Steps)
	}
	if c.Learner.GroupSize != 8 {
		t.Errorf("environment: group size %d", c.Learner.GroupSize)
	}
	if c.Learner.TimeLimit != 5*time.Minute {
		t.Errorf("flags: time limit %s", c.Learner.TimeLimit)
	}
}

// A variable named like a section must not hide the section.
func TestSectionVariable(t *testing.T) {
	t.Setenv("FORAGER_LEARNER", "tcp://10.0.0.1:80")
	c, err := sources{files: []string{write(t, "f.yaml", "learner: {lag: 3}")}}.load()
	if err != nil || c.Learner.Lag != 3 || c.Learner.Steps != defaultConfig().Learner.Steps {
		t.Errorf("lag %d, steps %d, %v", c.Learner.Lag, c.Learner.Steps, err)
	}
}

func TestConfigErrors(t *testing.T) {
	for name, c := range map[string]struct {
		yaml, set, variable, want string
	}{
		"unknown key":         {yaml: "learner:\n  learning_rat: 1", want: `config.yaml: unknown key "learner.learning_rat"; did you mean "learner.learning_rate"?`},
		"unknown section":     {yaml: "lerner:\n  lag: 1", want: `config.yaml: unknown key "lerner.lag"; did you mean "learner.lag"?`},
		"value for section":   {yaml: "learner: 3", want: `config.yaml: "learner" is a section, not a setting; did you mean "learner.steps"?`},
		"type":                {yaml: "learner: {lag: two}", want: `config.yaml: learner.lag: got "two", want a whole number`},
		"fraction":            {yaml: "learner: {lag: 2.5}", want: `config.yaml: learner.lag: got 2.5, want a whole number`},
		"duration":            {yaml: "learner: {time_limit: 30}", want: `config.yaml: learner.time_limit: got 30, want a duration such as 30s or 5m`},
		"empty value":         {yaml: "learner: {lag: }", want: ""}, // viper takes null for absent
		"entry":               {yaml: "reward: {transforms: {em: {scal: 2}}}", want: `config.yaml: reward.transforms: em: unknown key "scal"; did you mean "scale"?`},
		"not YAML":            {yaml: "learner: [", want: `config.yaml: not YAML: yaml: line 1: did not find expected node content`},
		"set key":             {set: "learner.lagg=1", want: `--set: unknown key "learner.lagg"; did you mean "learner.lag"?`},
		"set type":            {set: "learner.lag=x", want: `--set learner.lag: got "x", want a whole number`},
		"set map":             {set: "reward.weights=3", want: `--set reward.weights: got 3, want a map of names, each to a number`},
		"variable":            {variable: "FORAGER_LEARNER_LAG=x", want: `environment variable FORAGER_LEARNER_LAG: got "x", want a whole number`},
		"mistyped variable":   {variable: "FORAGER_LEARNER_LGA=1", want: `environment variable FORAGER_LEARNER_LGA is no setting; did you mean FORAGER_LEARNER_LAG?`},
		"foreign variable":    {variable: "FORAGER_SERVICE_HOST=10.0.0.1"},
		"test-data variable":  {variable: "FORAGER_DATA_DIR=/data"},
		"key of the judge":    {variable: "FORAGER_JUDGE_API_KEY=secret"},
		"commented-out lines": {yaml: "learner:\n  # lag: 1\nreplay:\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var s sources
			if c.yaml != "" {
				s.files = []string{write(t, "config.yaml", c.yaml)}
			}
			if key, value, ok := strings.Cut(c.set, "="); ok {
				s.overrides = []override{{key, value, "--set"}}
			}
			if key, value, ok := strings.Cut(c.variable, "="); ok {
				t.Setenv(key, value)
			}
			_, err := s.load()
			got := ""
			if err != nil {
				got = oneLine(err)
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestMaps(t *testing.T) {
	file := write(t, "f.yaml", "reward: {weights: {f1: 0.5, helpful: 0.1}}")
	c, err := sources{
		files:     []string{file},
		overrides: []override{{"reward.weights.helpful", "0.2", "--set"}, {"reward.transforms.f1", "{scale: 2}", "--set"}},
	}.load()
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]float64{"f1": 0.5, "helpful": 0.2}; !reflect.DeepEqual(c.Reward.Weights, want) {
		t.Errorf("weights are %v, want %v: a file replaces the default, a flag adds", c.Reward.Weights, want)
	}
	if c.Reward.Transforms["f1"].Scale != 2 {
		t.Errorf("transforms are %v", c.Reward.Transforms)
	}
	t.Setenv("FORAGER_REWARD_WEIGHTS", "{em: 0.7}")
	c, err = sources{files: []string{file}}.load()
	if want := map[string]float64{"em": 0.7}; err != nil || !reflect.DeepEqual(c.Reward.Weights, want) {
		t.Errorf("weights are %v, %v, want %v", c.Reward.Weights, err, want)
	}
}

func TestListOfOne(t *testing.T) {
	for _, text := range []string{"http://a:1", "[http://a:1]"} {
		c, err := sources{overrides: []override{{"policy.remote.urls", text, "--set"}}}.load()
		if err != nil || !reflect.DeepEqual(c.Policy.Remote.URLs, []string{"http://a:1"}) {
			t.Errorf("%s: %q, %v", text, c.Policy.Remote.URLs, err)
		}
	}
}

// What a run directory stores is read back without any change, or a run could
// not be resumed.
func TestYAMLRoundTrip(t *testing.T) {
	want := defaultConfig()
	want.Run.ID = "a: b # c"
	want.Run.Seed = 1<<64 - 1
	want.Learner.LearningRate = 1.25e-7
	want.Learner.TimeLimit = 90*time.Second + 5*time.Millisecond
	want.Reward.Weights = map[string]float64{"em": 1, "f1": -0.5}
	want.Policy.Remote.URLs = []string{"http://a:1", "http://b:2/v1"}
	want.Data.Tasks = "C:\\some\nfolder/true"
	got, err := sources{files: []string{write(t, "config.yaml", string(settings.YAML(&want)))}}.load()
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// Every setting can be changed by file, environment and flag, has a comment, and
// an environment variable of its own.
func TestEverySetting(t *testing.T) {
	cfg := defaultConfig()
	variables := make(map[string]string)
	for _, s := range settings.List(&cfg) {
		if s.Comment() == "" {
			t.Errorf("%s has no comment: write one at %s and run go generate ./cmd/forager", s.Name, s.Place())
		}
		if s.Kind != settings.Value {
			continue
		}
		if other, taken := variables[envName(s.Name)]; taken {
			t.Errorf("%s and %s share the variable %s", other, s.Name, envName(s.Name))
		}
		variables[envName(s.Name)] = s.Name
		t.Run(s.Name, func(t *testing.T) {
			value := other(s)
			if _, err := (sources{overrides: []override{{s.Name, value, "--set"}}}).load(); err != nil {
				t.Error(err)
			}
			t.Setenv(envName(s.Name), value)
			got, err := sources{}.load()
			if err != nil {
				t.Fatal(err)
			}
			changed, _, err := settings.Find(settings.List(&got), s.Name)
			if err != nil {
				t.Fatal(err)
			}
			if settings.Text(changed.Value) == settings.Text(s.Value) {
				t.Errorf("%s=%s changes nothing", envName(s.Name), value)
			}
		})
	}
}

// other is a value that differs from the default.
func other(s settings.Setting) string {
	if s.Value.Type() == reflect.TypeFor[time.Duration]() {
		return "12345s"
	}
	switch s.Value.Kind() {
	case reflect.Bool:
		if s.Value.Bool() {
			return "false"
		}
		return "true"
	case reflect.String:
		return "something else"
	case reflect.Map:
		if s.Value.Type().Elem().Kind() == reflect.Struct {
			return "{other: {scale: 7}}"
		}
		return "{other: 7}"
	case reflect.Slice:
		of := s.Value.Type().Elem()
		if of.Kind() == reflect.String {
			return "[other]"
		}
		if _, ok := of.FieldByName("Tokens"); ok {
			return "[{tokens: 7}]"
		}
		return "[{model: other}]"
	}
	return "7654"
}

func TestDocsAreUpToDate(t *testing.T) {
	got, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(configDocs()) {
		t.Error("docs/configuration.md is out of date: run go generate ./cmd/forager")
	}
}
