package eval

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/reward"
)

// Names of the metrics of a report. All but searches and tokens lie in [0, 1].
const (
	EM             = "em"
	F1             = "f1"
	SubEM          = "sub_em"
	EvidenceRecall = "evidence_recall"
	ValidFormat    = "valid_format"  // share of rollouts that keep the tag protocol
	Searches       = "searches"      // search turns per question
	PolicyTokens   = "policy_tokens" // tokens that the policy sampled, per rollout
)

// Metrics lists the metric names in the order in which they are shown.
func Metrics() []string {
	return []string{EM, F1, SubEM, EvidenceRecall, ValidFormat, Searches, PolicyTokens}
}

// Config is the settings of the bootstrap.
type Config struct {
	// Resamples is the number of bootstrap resamples of each interval, at least 1.
	Resamples int `mapstructure:"resamples"`
	// Confidence is the coverage of the intervals, between 0 and 1.
	Confidence float64 `mapstructure:"confidence"`
}

// DefaultConfig is 1,000 resamples and 95 % intervals.
func DefaultConfig() Config { return Config{Resamples: 1000, Confidence: 0.95} }

// Validate reports the first setting out of range, or nil.
func (c Config) Validate() error {
	if c.Resamples < 1 {
		return fmt.Errorf("eval: resamples is %d, want at least 1", c.Resamples)
	}
	if !(c.Confidence > 0 && c.Confidence < 1) {
		return fmt.Errorf("eval: confidence is %v, want a number between 0 and 1", c.Confidence)
	}
	return nil
}

// Estimate is a mean over questions with its percentile bootstrap interval.
type Estimate struct {
	Mean float64 `json:"mean"`
	Low  float64 `json:"low"`
	High float64 `json:"high"`
	N    int     `json:"n"` // questions for which the metric is known
}

// Group is the estimates of some of the questions. A metric that is known for
// none of them is absent.
type Group struct {
	Name      string              `json:"name"`
	Questions int                 `json:"questions"`
	Metrics   map[string]Estimate `json:"metrics"`
}

// Breakdown is one set of questions seen whole and in parts.
type Breakdown struct {
	Overall   Group   `json:"overall"`    // every question counts the same
	Macro     Group   `json:"macro_hops"` // every number of hops counts the same
	ByHops    []Group `json:"by_hops"`
	ByDataset []Group `json:"by_dataset"`
	ByType    []Group `json:"by_type"`
}

// Question is the mean over the rollouts of one task. A metric that is unknown
// (evidence recall without gold evidence) is absent.
type Question struct {
	TaskID   string             `json:"task_id"`
	Dataset  string             `json:"dataset"`
	Type     string             `json:"type"`
	Hops     int                `json:"hops"`
	Rollouts int                `json:"rollouts"`
	Metrics  map[string]float64 `json:"metrics"`
}

// Report is the result of an evaluation.
type Report struct {
	Questions  int     `json:"questions"`  // with at least one usable rollout
	Unplayed   int     `json:"unplayed"`   // tasks without a usable rollout; in no mean
	Rollouts   int     `json:"rollouts"`   // usable
	Failed     int     `json:"failed"`     // rollouts whose environment failed; in no mean
	Resamples  int     `json:"resamples"`  // of each interval
	Confidence float64 `json:"confidence"` // of each interval

	Finish map[forager.Finish]int `json:"finish"` // all rollouts by finish reason
	Breakdown
	PerQuestion []Question `json:"per_question,omitempty"` // in the order of the tasks; Compare needs it
}

// Evaluate scores rollouts (one or more per task) against their tasks. EM, F1
// and sub-EM are computed from the answers; valid format and, where present,
// evidence recall are read from the rollouts' rewards, because they need text
// that a rollout does not carry.
//
// Intervals resample questions, not rollouts: rollouts of one question are not
// independent. Equal inputs and an equally seeded rng give equal reports. A
// rollout of a task that is not given is an error that wraps
// forager.ErrNotFound.
func Evaluate(tasks []forager.Task, rollouts []forager.Rollout, config Config, rng *rand.Rand) (Report, error) {
	if err := config.Validate(); err != nil {
		return Report{}, err
	}
	byTask := make(map[string][]forager.Rollout, len(tasks))
	for _, t := range tasks {
		if _, twice := byTask[t.ID]; twice {
			return Report{}, fmt.Errorf("evaluate: task %s is given twice", t.ID)
		}
		byTask[t.ID] = nil
	}
	report := Report{Resamples: config.Resamples, Confidence: config.Confidence, Finish: map[forager.Finish]int{}}
	for _, r := range rollouts {
		if _, known := byTask[r.TaskID]; !known {
			return Report{}, fmt.Errorf("evaluate: task %s of rollout %s: %w", r.TaskID, r.ID, forager.ErrNotFound)
		}
		report.Finish[r.Finish]++
		if r.Finish == forager.FinishRetriever {
			report.Failed++
			continue
		}
		report.Rollouts++
		byTask[r.TaskID] = append(byTask[r.TaskID], r)
	}
	for _, t := range tasks {
		if len(byTask[t.ID]) == 0 {
			report.Unplayed++
			continue
		}
		report.PerQuestion = append(report.PerQuestion, question(t, byTask[t.ID]))
	}
	report.Questions = len(report.PerQuestion)
	if report.Questions == 0 {
		return Report{}, errors.New("evaluate: no task has a usable rollout")
	}
	report.Breakdown = breakdown(report.PerQuestion, estimator{config, rng})
	return report, nil
}

// question averages every metric over the rollouts that know it.
func question(t forager.Task, rollouts []forager.Rollout) Question {
	sums, counts := map[string]float64{}, map[string]int{}
	for _, r := range rollouts {
		for name, v := range measure(t, r) {
			sums[name] += v
			counts[name]++
		}
	}
	q := Question{TaskID: t.ID, Dataset: t.Dataset, Type: t.Type, Hops: t.Hops, Rollouts: len(rollouts), Metrics: sums}
	for name := range sums {
		q.Metrics[name] /= float64(counts[name])
	}
	return q
}

func measure(t forager.Task, r forager.Rollout) map[string]float64 {
	m := map[string]float64{
		EM:           reward.ExactMatch(r.Answer, t.Answers),
		F1:           reward.F1(r.Answer, t.Answers),
		SubEM:        reward.SubEM(r.Answer, t.Answers),
		Searches:     float64(r.Searches()),
		PolicyTokens: float64(r.PolicyTokens()),
	}
	if v, ok := r.Rewards[reward.SourceValid]; ok {
		m[ValidFormat] = v
	}
	if v, ok := r.Rewards[reward.SourceEvidenceRecall]; ok {
		m[EvidenceRecall] = v
	} else {
		var ids []string
		for _, turn := range r.Turns {
			ids = append(ids, turn.DocIDs...)
		}
		if recall, known := reward.EvidenceRecall(t, ids, nil); known {
			m[EvidenceRecall] = recall
		}
	}
	return m
}

// breakdown estimates the whole and its parts. Parts come in a fixed order,
// since each draws from the random source.
func breakdown(questions []Question, e estimator) Breakdown {
	all := make([]vector, len(questions))
	byHops, byDataset, byType := map[int][]vector{}, map[string][]vector{}, map[string][]vector{}
	for i, q := range questions {
		v := newVector(q.Metrics)
		all[i] = v
		byHops[q.Hops] = append(byHops[q.Hops], v)
		byDataset[q.Dataset] = append(byDataset[q.Dataset], v)
		byType[q.Type] = append(byType[q.Type], v)
	}
	b := Breakdown{Overall: e.estimate("overall", all)}
	var strata [][]vector
	for _, hops := range sortedKeys(byHops) {
		strata = append(strata, byHops[hops])
	}
	b.Macro = e.estimate("macro over hops", strata...)
	b.ByHops = groups(byHops, hopsName, e)
	b.ByDataset = groups(byDataset, orUnknown, e)
	b.ByType = groups(byType, orUnknown, e)
	return b
}

func groups[K int | string](parts map[K][]vector, name func(K) string, e estimator) []Group {
	var out []Group
	for _, key := range sortedKeys(parts) {
		out = append(out, e.estimate(name(key), parts[key]))
	}
	return out
}

func hopsName(hops int) string {
	if hops == 0 {
		return "unknown"
	}
	return strconv.Itoa(hops)
}

func orUnknown(name string) string {
	if name == "" {
		return "unknown"
	}
	return name
}

func sortedKeys[K int | string, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// vector is the metrics of one question in the order of Metrics; NaN: unknown.
type vector [7]float64

func newVector(metrics map[string]float64) vector {
	var v vector
	for i, name := range Metrics() {
		value, ok := metrics[name]
		if !ok {
			value = math.NaN()
		}
		v[i] = value
	}
	return v
}
