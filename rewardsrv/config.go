package rewardsrv

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/forager-rl/forager/rewardsrv/judge"
	"github.com/forager-rl/forager/rewardsrv/rewardmodel"
)

// Names of the built-in judges.
const (
	JudgeRule = "rule"
	JudgeLLM  = "llm"
	// JudgeNone runs no reward server.
	JudgeNone = "none"
)

// Config is the settings of the reward server.
type Config struct {
	// Judge says who labels: rule (compares passages with the task's
	// decomposition and gold passages), llm (OpenAI-compatible endpoints) or none
	// (nothing is labelled).
	Judge string `mapstructure:"judge"`
	// Source is the reward source of the rule judge's labels; those of the llm
	// judge are named after their rubrics. reward.weights names sources.
	Source string `mapstructure:"source"`
	// Rubrics are what the llm judge is asked, each for itself: names of built-in
	// rubrics, or YAML files, which are read again when they change.
	Rubrics []string `mapstructure:"rubrics"`
	// MaxPassageChars is where each passage is cut in a prompt, in characters.
	MaxPassageChars int `mapstructure:"max_passage_chars"`
	// ShowGold lets the llm judge see the gold answers. Labels never repeat them either way.
	ShowGold bool `mapstructure:"show_gold"`
	// LLM is the endpoints of the llm judge.
	LLM judge.Config `mapstructure:"llm"`
	// RewardModel is what is distilled from the labels.
	RewardModel RewardModelConfig `mapstructure:"reward_model"`

	// MaxInFlight is the most judge calls at one time, at least 1. The llm judge
	// makes fewer while its endpoints take no more.
	MaxInFlight int `mapstructure:"max_in_flight"`
	// MaxQueued is the most distinct steps that wait for the judge, at least 1. When it is
	// exceeded the oldest is dropped.
	MaxQueued int `mapstructure:"max_queued"`
	// MaxQueuedBytes bounds the text of all waiting steps, in bytes.
	MaxQueuedBytes int64 `mapstructure:"max_queued_bytes"`
	// MaxDigestBytes is the largest digest that is looked at, in bytes of text; larger ones are dropped.
	MaxDigestBytes int64 `mapstructure:"max_digest_bytes"`
	// MaxWaiting is the most turns that wait for one step's label; the rest are dropped.
	MaxWaiting int `mapstructure:"max_waiting"`
	// MaxLabels is the most labels kept in memory; the others are on disk, where
	// looking one up takes some microseconds.
	MaxLabels int `mapstructure:"max_labels"`
	// OldestEvery is the age floor of the newest-first order: every n-th step
	// taken is the oldest one. 0 means never, 1 means oldest first.
	OldestEvery int `mapstructure:"oldest_every"`
	// ClaimLease is how long another reward server may show no sign of life about
	// a step that it holds, 1s to 5m. Then this one labels it.
	ClaimLease time.Duration `mapstructure:"claim_lease"`

	// IntakeBatch is the most digests asked for at one time.
	IntakeBatch int `mapstructure:"intake_batch"`
	// PublishBatch is the most labels published at one time.
	PublishBatch int `mapstructure:"publish_batch"`
	// MaxUnpublished is the most labels that wait to be published, and again the
	// most that were published and did not come back yet; beyond it the server
	// reads and asks no more.
	MaxUnpublished int `mapstructure:"max_unpublished"`
	// ShutdownGrace is how long finished labels may still be published after the server was told to stop.
	ShutdownGrace time.Duration `mapstructure:"shutdown_grace"`
}

// RewardModelConfig is what is distilled from the labels, to score turns that
// nobody has labelled. Its kind may also be none, or retrieval, which is the table
// of labels itself; both train nothing.
type RewardModelConfig struct {
	// Source is the reward source whose labels are learned from; empty takes the
	// first one that fits the kind.
	Source string `mapstructure:"source"`
	// PublishInterval is the least time between two versions of the model, at least 1s.
	PublishInterval time.Duration `mapstructure:"publish_interval"`
	// MaxShare is the most of one processor's time that training takes, 0.01 to 1.
	MaxShare float64 `mapstructure:"max_share"`

	rewardmodel.Config `mapstructure:",squash"`
}

// Kinds of reward models beside those of package rewardmodel: none, and the
// label table itself, which needs no training.
const (
	ModelNone      rewardmodel.Kind = "none"
	ModelRetrieval rewardmodel.Kind = "retrieval"
)

// trained says whether there is a model to train.
func (c RewardModelConfig) trained() bool { return c.Kind != ModelNone && c.Kind != ModelRetrieval }

func (c RewardModelConfig) validate() error {
	switch {
	case !c.trained():
		return nil
	case c.PublishInterval < time.Second:
		return fmt.Errorf("reward server: reward_model.publish_interval is %v, want at least 1s", c.PublishInterval)
	case !(c.MaxShare >= 0.01 && c.MaxShare <= 1):
		return fmt.Errorf("reward server: reward_model.max_share is %v, want 0.01 to 1", c.MaxShare)
	case c.Kind != rewardmodel.Classification && c.Kind != rewardmodel.Ranking:
		return fmt.Errorf("reward server: reward_model.kind is %q, want %s, %s, %s or %s", c.Kind, ModelNone, ModelRetrieval, rewardmodel.Classification, rewardmodel.Ranking)
	}
	return c.Config.Validate()
}

// DefaultConfig is the rule judge, no reward model, and bounds that keep the
// server's memory under about 300 MB.
func DefaultConfig() Config {
	model := RewardModelConfig{PublishInterval: 15 * time.Second, MaxShare: 0.05, Config: rewardmodel.DefaultConfig()}
	model.Kind = ModelNone
	return Config{
		Judge:           JudgeRule,
		Source:          "helpful",
		Rubrics:         []string{"helpfulness"},
		MaxPassageChars: 1500,
		LLM:             judge.DefaultConfig(),
		RewardModel:     model,
		MaxInFlight:     64,
		MaxQueued:       32_768,
		MaxQueuedBytes:  64 << 20,
		MaxDigestBytes:  64 << 10,
		MaxWaiting:      64,
		MaxLabels:       50_000,
		OldestEvery:     8,
		ClaimLease:      30 * time.Second,
		IntakeBatch:     256,
		PublishBatch:    256,
		MaxUnpublished:  2048,
		ShutdownGrace:   5 * time.Second,
	}
}

// Validate reports the first setting out of range, or nil.
func (c Config) Validate() error {
	switch c.Judge {
	case JudgeNone:
	case JudgeRule:
		if c.Source == "" {
			return errors.New("reward server: source is empty")
		}
	case JudgeLLM:
		if len(c.Rubrics) == 0 || slices.Contains(c.Rubrics, "") {
			return errors.New("reward server: rubrics is empty or names an empty one")
		}
		if err := c.LLM.Validate(); err != nil {
			return fmt.Errorf("reward server: llm: %w", err)
		}
	default:
		return fmt.Errorf("reward server: judge is %q, want %s, %s or %s", c.Judge, JudgeRule, JudgeLLM, JudgeNone)
	}
	for _, k := range []struct {
		name  string
		value int64
		least int64
	}{
		{"max_passage_chars", int64(c.MaxPassageChars), 1},
		{"max_in_flight", int64(c.MaxInFlight), 1},
		{"max_queued", int64(c.MaxQueued), 1},
		{"max_digest_bytes", c.MaxDigestBytes, 1},
		{"max_queued_bytes", c.MaxQueuedBytes, c.MaxDigestBytes},
		{"max_waiting", int64(c.MaxWaiting), 1},
		{"max_labels", int64(c.MaxLabels), 1},
		{"oldest_every", int64(c.OldestEvery), 0},
		{"intake_batch", int64(c.IntakeBatch), 1},
		{"publish_batch", int64(c.PublishBatch), 1},
		{"max_unpublished", int64(c.MaxUnpublished), 1},
	} {
		if k.value < k.least {
			return fmt.Errorf("reward server: %s is %d, want at least %d", k.name, k.value, k.least)
		}
	}
	switch {
	case c.ShutdownGrace < 0:
		return fmt.Errorf("reward server: shutdown_grace is %v, want 0 or more", c.ShutdownGrace)
	case c.ClaimLease < time.Second || c.ClaimLease > 5*time.Minute:
		return fmt.Errorf("reward server: claim_lease is %v, want 1s to 5m", c.ClaimLease)
	}
	return c.RewardModel.validate()
}
