package remote

import (
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/forager-rl/forager"
)

// Kind is the software of a server.
type Kind string

// The kinds. With Auto the server is asked.
const (
	Auto     Kind = "auto"
	VLLM     Kind = "vllm"
	SGLang   Kind = "sglang"
	LlamaCpp Kind = "llamacpp"
	OpenAI   Kind = "openai"
)

// Config names the servers of a policy and bounds what is asked of them.
type Config struct {
	// URLs are the servers, as http://host:port, which all serve the same model.
	// None means that the policy runs in this process.
	URLs []string `mapstructure:"urls"`
	// Kind is vllm, sglang, llamacpp, openai (text only, for evaluation), or auto
	// to ask the server.
	Kind Kind `mapstructure:"kind"`
	// Model is the name under which the servers know the model; empty takes the
	// one that they list first.
	Model string `mapstructure:"model"`
	// APIKeyEnv names the environment variable that holds the servers' API key;
	// empty sends none.
	APIKeyEnv string `mapstructure:"api_key_env"`
	// Timeout bounds one attempt at one completion.
	Timeout time.Duration `mapstructure:"timeout"`
	// RetryFor is how long a completion is tried again, on another server where
	// there is one, after no answer, 429 or 5xx: long enough for a server to be
	// started anew. 0 tries once.
	RetryFor time.Duration `mapstructure:"retry_for"`
	// MaxWait bounds the pause before a retry, including what Retry-After asks for.
	MaxWait time.Duration `mapstructure:"max_wait"`
	// MaxInFlight bounds the completions under way at once on one server; at least 1.
	MaxInFlight int `mapstructure:"max_in_flight"`
	// BreakerFailures is the number of failures in a row after which a server is
	// left alone; at least 1.
	BreakerFailures int `mapstructure:"breaker_failures"`
	// BreakerPause is how long it is left alone before it is tried again.
	BreakerPause time.Duration `mapstructure:"breaker_pause"`
	// StartTimeout bounds the wait for servers that are still loading their model.
	StartTimeout time.Duration `mapstructure:"start_timeout"`
	// LoadTimeout bounds one server's loading of new weights.
	LoadTimeout time.Duration `mapstructure:"load_timeout"`
	// WeightsDir is a folder that the learner and the servers share. New weights
	// are written there, one folder a version; training needs it.
	WeightsDir string `mapstructure:"weights_dir"`
	// ServerWeightsDir is the path of the same folder as the servers see it;
	// empty means the same path.
	ServerWeightsDir string `mapstructure:"server_weights_dir"`
	// Extra is sent along with each request to a server of kind openai, such as
	// {repeat_penalty: 1} where the server's own default is another.
	Extra map[string]float64 `mapstructure:"extra"`
}

// DefaultConfig names no server.
func DefaultConfig() Config {
	return Config{
		Kind: Auto, Timeout: 5 * time.Minute, RetryFor: 5 * time.Minute, MaxWait: 10 * time.Second, MaxInFlight: 64,
		BreakerFailures: 5, BreakerPause: 10 * time.Second, StartTimeout: 2 * time.Minute, LoadTimeout: 5 * time.Minute,
	}
}

// Validate reports the first setting out of range, or nil.
func (c Config) Validate() error {
	for _, text := range c.URLs {
		address, err := url.Parse(text)
		if err != nil || address.Host == "" || (address.Scheme != "http" && address.Scheme != "https") {
			return forager.WithHint(fmt.Errorf("url %q is no http address", text), "write it as http://host:port")
		}
	}
	if !slices.Contains([]Kind{Auto, VLLM, SGLang, LlamaCpp, OpenAI}, c.Kind) {
		return fmt.Errorf("kind is %q, want auto, vllm, sglang, llamacpp or openai", c.Kind)
	}
	switch {
	case c.RetryFor < 0:
		return fmt.Errorf("retry_for is %v, want 0 or more", c.RetryFor)
	case c.MaxInFlight < 1:
		return fmt.Errorf("max_in_flight is %d, want at least 1", c.MaxInFlight)
	case c.BreakerFailures < 1:
		return fmt.Errorf("breaker_failures is %d, want at least 1", c.BreakerFailures)
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"timeout", c.Timeout},
		{"max_wait", c.MaxWait},
		{"breaker_pause", c.BreakerPause},
		{"start_timeout", c.StartTimeout},
		{"load_timeout", c.LoadTimeout},
	} {
		if d.value <= 0 {
			return fmt.Errorf("%s is %v, want more than 0", d.name, d.value)
		}
	}
	return nil
}
