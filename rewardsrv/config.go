package rewardsrv

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/forager-rl/forager"
)

// Names of the built-in judges.
const (
	JudgeRule = "rule"
	JudgeLLM  = "llm"
)

// Config is the settings of the reward server.
type Config struct {
	// Source is the reward source under which labels are published; reward.weights names it.
	Source string `mapstructure:"source"`
	// Judge says who labels: rule (compares passages with the task's
	// decomposition and gold passages) or llm (an OpenAI-compatible endpoint).
	Judge string `mapstructure:"judge"`
	// LLM is the endpoint of the llm judge.
	LLM LLMConfig `mapstructure:"llm"`

	// MaxInFlight is the most judge calls at one time, at least 1.
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
	// MaxLabels is the most labels kept to answer repeated steps without the
	// judge; the one unused for longest is forgotten first.
	MaxLabels int `mapstructure:"max_labels"`
	// OldestEvery is the age floor of the newest-first order: every n-th step
	// taken is the oldest one. 0 means never, 1 means oldest first.
	OldestEvery int `mapstructure:"oldest_every"`

	// IntakeBatch is the most digests asked for at one time.
	IntakeBatch int `mapstructure:"intake_batch"`
	// PublishBatch is the most labels published at one time.
	PublishBatch int `mapstructure:"publish_batch"`
	// MaxUnpublished is the most labels that wait to be published; beyond it the server reads no further digests.
	MaxUnpublished int `mapstructure:"max_unpublished"`
	// ShutdownGrace is how long finished labels may still be published after the server was told to stop.
	ShutdownGrace time.Duration `mapstructure:"shutdown_grace"`

	// CircuitFailures is the number of judge failures in a row after which the server pauses, at least 1.
	CircuitFailures int `mapstructure:"circuit_failures"`
	// CircuitPause is the first pause after that; it doubles while failures go on.
	CircuitPause time.Duration `mapstructure:"circuit_pause"`
	// CircuitMaxPause is the longest pause.
	CircuitMaxPause time.Duration `mapstructure:"circuit_max_pause"`
}

// LLMConfig is an OpenAI-compatible chat endpoint that labels steps.
type LLMConfig struct {
	// BaseURL is the endpoint up to and with its version, such as http://127.0.0.1:8000/v1.
	BaseURL string `mapstructure:"base_url"`
	// Model is the model name that the endpoint expects.
	Model string `mapstructure:"model"`
	// APIKeyEnv names the environment variable that holds the API key. It may be unset for endpoints without one.
	APIKeyEnv string `mapstructure:"api_key_env"`
	// APIKeyFile is a file that holds the API key; it is read anew for every
	// request, so that a rotated key is used at once, and goes before APIKeyEnv.
	APIKeyFile string `mapstructure:"api_key_file"`
	// Timeout bounds one request.
	Timeout time.Duration `mapstructure:"timeout"`
	// Retries is how often a refused or failed request is repeated, with exponential back-off and jitter.
	Retries int `mapstructure:"retries"`
	// Temperature of the judge, 0 to 2.
	Temperature float64 `mapstructure:"temperature"`
	// MaxTokens bounds the judge's answer, at least 16.
	MaxTokens int `mapstructure:"max_tokens"`
	// MaxPassageChars is where each passage is cut in the prompt, in characters.
	MaxPassageChars int `mapstructure:"max_passage_chars"`
	// ShowGold lets the judge see the gold answers. Labels never repeat them either way.
	ShowGold bool `mapstructure:"show_gold"`
}

// DefaultConfig is the rule judge with bounds that keep live memory under about
// 200 MB.
func DefaultConfig() Config {
	return Config{
		Source: "helpful",
		Judge:  JudgeRule,
		LLM: LLMConfig{
			APIKeyEnv:       "FORAGER_JUDGE_API_KEY",
			Timeout:         30 * time.Second,
			Retries:         2,
			MaxTokens:       256,
			MaxPassageChars: 1500,
		},
		MaxInFlight:     8,
		MaxQueued:       4096,
		MaxQueuedBytes:  64 << 20,
		MaxDigestBytes:  64 << 10,
		MaxWaiting:      64,
		MaxLabels:       100_000,
		OldestEvery:     8,
		IntakeBatch:     256,
		PublishBatch:    256,
		MaxUnpublished:  4096,
		ShutdownGrace:   5 * time.Second,
		CircuitFailures: 5,
		CircuitPause:    time.Second,
		CircuitMaxPause: time.Minute,
	}
}

// Validate reports the first setting out of range, or nil.
func (c Config) Validate() error {
	if c.Source == "" {
		return errors.New("reward server: source is empty")
	}
	switch c.Judge {
	case JudgeRule:
	case JudgeLLM:
		if err := c.LLM.Validate(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("reward server: judge is %q, want %s or %s", c.Judge, JudgeRule, JudgeLLM)
	}
	for _, k := range []struct {
		name  string
		value int64
		least int64
	}{
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
		{"circuit_failures", int64(c.CircuitFailures), 1},
	} {
		if k.value < k.least {
			return fmt.Errorf("reward server: %s is %d, want at least %d", k.name, k.value, k.least)
		}
	}
	switch {
	case c.ShutdownGrace < 0:
		return fmt.Errorf("reward server: shutdown_grace is %v, want 0 or more", c.ShutdownGrace)
	case c.CircuitPause <= 0:
		return fmt.Errorf("reward server: circuit_pause is %v, want more than 0", c.CircuitPause)
	case c.CircuitMaxPause < c.CircuitPause:
		return fmt.Errorf("reward server: circuit_max_pause is %v, want at least circuit_pause (%v)", c.CircuitMaxPause, c.CircuitPause)
	}
	return nil
}

// Validate reports what makes the endpoint unusable, or nil.
func (c LLMConfig) Validate() error {
	u, err := url.Parse(c.BaseURL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return forager.WithHint(fmt.Errorf("reward server: llm.base_url is %q, want an http or https address", c.BaseURL),
			"set it to your endpoint, such as http://127.0.0.1:8000/v1")
	case c.Model == "":
		return errors.New("reward server: llm.model is empty")
	case c.Timeout <= 0:
		return fmt.Errorf("reward server: llm.timeout is %v, want more than 0", c.Timeout)
	case c.Retries < 0 || c.Retries > 10:
		return fmt.Errorf("reward server: llm.retries is %d, want 0 to 10", c.Retries)
	case !(c.Temperature >= 0 && c.Temperature <= 2):
		return fmt.Errorf("reward server: llm.temperature is %v, want 0 to 2", c.Temperature)
	case c.MaxTokens < 16:
		return fmt.Errorf("reward server: llm.max_tokens is %d, want at least 16", c.MaxTokens)
	case c.MaxPassageChars < 1:
		return fmt.Errorf("reward server: llm.max_passage_chars is %d, want at least 1", c.MaxPassageChars)
	}
	return nil
}
