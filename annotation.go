package forager

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"
)

// TurnDigest is what the reward server needs to label one turn, small enough
// to be dropped and repeated at will.
type TurnDigest struct {
	Run       string    `json:"run"`
	RolloutID string    `json:"rollout_id"`
	Turn      int       `json:"turn"` // index in Rollout.Turns
	TaskID    string    `json:"task_id"`
	Question  string    `json:"question"`
	Query     string    `json:"query"`
	Passages  []Passage `json:"passages"`
	// Observation is the text that the policy was shown of the passages, cut to
	// its bounds: what a reward model reads, here and when replay is sampled.
	Observation string    `json:"observation"`
	Earlier     []string  `json:"earlier,omitempty"` // queries of the same rollout before this one, oldest first
	Answer      string    `json:"answer"`            // the rollout's final answer, "" when none
	Time        time.Time `json:"time"`

	// Trace is the group's place in its credit's trace.
	Trace Trace `json:"-"`
}

// Annotation is one label for one turn, or for a whole rollout when Turn is
// WholeRollout, from one reward source.
type Annotation struct {
	RolloutID string        `json:"rollout_id"`
	Turn      int           `json:"turn"`
	Source    string        `json:"source"`          // name of the reward source, such as "helpful"
	Value     *float64      `json:"value,omitempty"` // nil: not labelled, which differs from 0
	Key       string        `json:"key"`             // label key: equal keys are judged once
	Judge     string        `json:"judge"`
	Rubric    string        `json:"rubric"` // rubric version, a digest of its text
	Rationale string        `json:"rationale,omitempty"`
	Latency   time.Duration `json:"latency"`
	Time      time.Time     `json:"time"`
	// Judgement travels with the one annotation that a judge was asked for; it
	// is zero on those that repeat a label.
	Judgement Judgement `json:"judgement,omitzero"`
}

// Judgement is how a label came about, and what was judged, so that a label can
// be traced and a reward model be trained anew from the stream of annotations.
type Judgement struct {
	Model            string `json:"model,omitempty"`    // as the endpoint names it
	Endpoint         string `json:"endpoint,omitempty"` // address, without credentials
	PromptDigest     string `json:"prompt_digest,omitempty"`
	Answer           string `json:"answer,omitempty"` // raw, cut to a few kilobytes; may name gold answers
	PromptTokens     int    `json:"prompt_tokens,omitempty"`
	CompletionTokens int    `json:"completion_tokens,omitempty"`
	TaskID           string `json:"task_id,omitempty"`
	Question         string `json:"question,omitempty"`
	Query            string `json:"query,omitempty"`
	Observation      string `json:"observation,omitempty"`
	// Of a preference, the step that this one was compared with.
	OtherQuery       string `json:"other_query,omitempty"`
	OtherObservation string `json:"other_observation,omitempty"`
}

// WholeRollout is the Turn of an annotation that is about the whole rollout.
const WholeRollout = -1

// ModelJudge begins the Judge of an annotation that a reward model gave in a
// judge's place; its kind follows. Rubric is then the model's version.
const ModelJudge = "model:"

// ModelVersion is the version of the reward model that gave the annotation; ok
// is false for one of a judge.
func (a *Annotation) ModelVersion() (version uint64, ok bool) {
	if !strings.HasPrefix(a.Judge, ModelJudge) {
		return 0, false
	}
	version, err := strconv.ParseUint(a.Rubric, 10, 64)
	return version, err == nil
}

// ObservationKey identifies what a search brought, whatever the order of its
// passages. Their text counts too, so that an id that stands for another text
// elsewhere does not borrow its label. It is 32 hexadecimal digits; no passage
// gives a key as well.
func ObservationKey(passages []Passage) string {
	each := make([]string, len(passages))
	for i, p := range passages {
		each[i] = Digest(p.ID, p.Title, p.Text)
	}
	slices.Sort(each)
	return Digest(slices.Compact(each)...)
}

// Digest is half a SHA-256, as 32 hexadecimal digits, of strings with their
// lengths, so that where one ends and the next begins counts.
func Digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write(strconv.AppendInt(nil, int64(len(p)), 10))
		h.Write([]byte{':'})
		h.Write([]byte(p))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
