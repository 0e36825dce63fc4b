package judge

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/forager-rl/forager"
)

// Values of Config.StructuredOutput.
const (
	StructuredAuto = "auto"
	StructuredOn   = "on"
	StructuredOff  = "off"
)

// Config is a pool of endpoints that all serve the same judge.
type Config struct {
	// Model is the name of the judge: what the endpoints call it, unless they say
	// otherwise, and what its labels are filed under.
	Model string `mapstructure:"model"`
	// Endpoints are the servers that are asked, at least one.
	Endpoints []EndpointConfig `mapstructure:"endpoints"`

	// Temperature of the judge, 0 to 2.
	Temperature float64 `mapstructure:"temperature"`
	// MaxTokens bounds the judge's answer, at least 16. Models that think before
	// they answer need room for that too.
	MaxTokens int `mapstructure:"max_tokens"`
	// MaxAnswerBytes bounds the body of an endpoint's answer, at least 1024; a
	// larger one is cut off while it is read and is not used.
	MaxAnswerBytes int64 `mapstructure:"max_answer_bytes"`
	// StructuredOutput says whether endpoints are held to the rubric's JSON schema:
	// auto (where they do not refuse), on (or else they are not asked), or off.
	StructuredOutput string `mapstructure:"structured_output"`

	// Timeout bounds one request, and also the wait for a free place at an endpoint.
	Timeout time.Duration `mapstructure:"timeout"`
	// Retries is how often a failed request is repeated, at another endpoint where
	// there is one, with exponential back-off and jitter; 0 to 10.
	Retries int `mapstructure:"retries"`
	// MinInFlight is the least requests at one time to one endpoint, however
	// overloaded it is; at least 1.
	MinInFlight int `mapstructure:"min_in_flight"`
	// MaxInFlight is the most requests at one time to one endpoint. In between
	// the number adapts: it grows as long as that brings more answers a second.
	MaxInFlight int `mapstructure:"max_in_flight"`
	// RequestsPerHour is the most requests in any hour, all endpoints together,
	// retries included; at least 60, or 0 for no bound. A twelfth of it may be
	// used at once.
	RequestsPerHour int `mapstructure:"requests_per_hour"`
	// TokensPerHour is the most tokens in any hour, prompts and answers of all
	// endpoints together; at least 12 times max_tokens, or 0 for no bound. A
	// twelfth of it may be used at once.
	TokensPerHour int `mapstructure:"tokens_per_hour"`
	// BreakerFailures is the number of failures in a row after which an endpoint is
	// left alone, at least 1.
	BreakerFailures int `mapstructure:"breaker_failures"`
	// BreakerPause is how long it is left alone before one request tries it again.
	BreakerPause time.Duration `mapstructure:"breaker_pause"`
}

// EndpointConfig is one OpenAI-compatible server.
type EndpointConfig struct {
	// BaseURL is the address up to and with its version, such as http://127.0.0.1:8000/v1.
	BaseURL string `mapstructure:"base_url"`
	// Model is the name of the judge at this endpoint; empty takes the pool's.
	Model string `mapstructure:"model"`
	// APIKeyEnv names the environment variable that holds the API key; empty sends
	// none. A key is sent to this endpoint alone.
	APIKeyEnv string `mapstructure:"api_key_env"`
	// APIKeyFile is a file that holds the API key; it is read anew, so that a
	// rotated key is used at once, and goes before the variable.
	APIKeyFile string `mapstructure:"api_key_file"`
	// ExtraBody is a JSON object that goes into every request, for options of this
	// server alone, such as {"chat_template_kwargs": {"enable_thinking": false}}.
	ExtraBody string `mapstructure:"extra_body"`
}

// extra reads ExtraBody; nil for none.
func (e EndpointConfig) extra() (map[string]any, error) {
	if e.ExtraBody == "" {
		return nil, nil
	}
	var parsed map[string]json.RawMessage
	if err := json.Unmarshal([]byte(e.ExtraBody), &parsed); err != nil {
		return nil, fmt.Errorf("no JSON object: %w", err)
	}
	fields := make(map[string]any, len(parsed))
	for name, value := range parsed {
		switch name {
		case "model", "messages", "stream", "n", "temperature", "max_tokens", "max_completion_tokens", "response_format":
			return nil, fmt.Errorf("%s is not set here", name)
		}
		fields[name] = value
	}
	return fields, nil
}

// DefaultConfig names no model and no endpoint.
func DefaultConfig() Config {
	return Config{
		MaxTokens:        256,
		MaxAnswerBytes:   64 << 10,
		StructuredOutput: StructuredAuto,
		Timeout:          30 * time.Second,
		Retries:          2,
		MinInFlight:      1,
		MaxInFlight:      64,
		BreakerFailures:  5,
		BreakerPause:     15 * time.Second,
	}
}

// Validate reports the first setting out of range, or nil.
func (c Config) Validate() error {
	if c.Model == "" {
		return errors.New("judge: model is empty")
	}
	if len(c.Endpoints) == 0 {
		return forager.WithHint(errors.New("judge: endpoints is empty"), "name at least one, such as {base_url: http://127.0.0.1:8000/v1}")
	}
	seen := map[string]bool{}
	for i, e := range c.Endpoints {
		u, err := url.Parse(e.BaseURL)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return forager.WithHint(fmt.Errorf("judge: base_url of endpoint %d is no http or https address", i+1),
				"write it such as http://127.0.0.1:8000/v1")
		}
		if seen[address(u)] {
			return fmt.Errorf("judge: endpoint %s is named twice", address(u))
		}
		seen[address(u)] = true
		if _, err := e.extra(); err != nil {
			return fmt.Errorf("judge: extra_body of endpoint %s: %w", address(u), err)
		}
	}
	if !(c.Temperature >= 0 && c.Temperature <= 2) {
		return fmt.Errorf("judge: temperature is %v, want 0 to 2", c.Temperature)
	}
	switch c.StructuredOutput {
	case StructuredAuto, StructuredOn, StructuredOff:
	default:
		return fmt.Errorf("judge: structured_output is %q, want auto, on or off", c.StructuredOutput)
	}
	if c.Retries > 10 {
		return fmt.Errorf("judge: retries is %d, want 0 to 10", c.Retries)
	}
	for _, k := range []struct {
		name         string
		value, least int64
	}{
		{"max_tokens", int64(c.MaxTokens), 16},
		{"max_answer_bytes", c.MaxAnswerBytes, 1024},
		{"retries", int64(c.Retries), 0},
		{"min_in_flight", int64(c.MinInFlight), 1},
		{"max_in_flight", int64(c.MaxInFlight), int64(c.MinInFlight)},
		{"requests_per_hour", int64(c.RequestsPerHour), 0},
		{"tokens_per_hour", int64(c.TokensPerHour), 0},
		{"breaker_failures", int64(c.BreakerFailures), 1},
	} {
		if k.value < k.least {
			return fmt.Errorf("judge: %s is %d, want at least %d", k.name, k.value, k.least)
		}
	}
	switch {
	case c.RequestsPerHour > 0 && c.RequestsPerHour < 60:
		return fmt.Errorf("judge: requests_per_hour is %d, want at least 60, or 0 for no bound", c.RequestsPerHour)
	case c.TokensPerHour > 0 && c.TokensPerHour < 12*c.MaxTokens:
		return fmt.Errorf("judge: tokens_per_hour is %d, want at least 12 times max_tokens (%d), or 0 for no bound", c.TokensPerHour, 12*c.MaxTokens)
	case c.Timeout <= 0:
		return fmt.Errorf("judge: timeout is %v, want more than 0", c.Timeout)
	case c.BreakerPause <= 0:
		return fmt.Errorf("judge: breaker_pause is %v, want more than 0", c.BreakerPause)
	}
	return nil
}

// address is how an endpoint is called in errors, logs and metrics: without user,
// password and query, which may be secrets.
func address(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
