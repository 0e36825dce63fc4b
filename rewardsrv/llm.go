package rewardsrv

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/forager-rl/forager"
)

// LLMJudge asks an OpenAI-compatible chat endpoint (vLLM, SGLang, llama.cpp,
// Ollama, a hosted one) for each label.
type LLMJudge struct {
	config LLMConfig
	chat   openai.ChatCompletionService
	models openai.ModelService

	mu  sync.Mutex
	rng *rand.Rand
}

// NewLLMJudge checks the settings and makes the judge; it sends nothing. The
// random source draws fences and label words and ought to be unpredictable.
func NewLLMJudge(config LLMConfig, rng *rand.Rand) (*LLMJudge, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	transport, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("reward server: the default HTTP transport was replaced")
	}
	transport = transport.Clone()
	transport.MaxIdleConnsPerHost = 32 // the default of 2 would reconnect for most requests
	// The services are made directly: openai.NewClient would read OPENAI_*
	// variables and send their credentials to whatever endpoint is configured.
	options := []option.RequestOption{
		option.WithBaseURL(config.BaseURL),
		option.WithHTTPClient(&http.Client{Transport: transport}),
		option.WithRequestTimeout(config.Timeout),
		option.WithMaxRetries(config.Retries),
		option.WithMaxRetryDelay(config.Timeout),
	}
	return &LLMJudge{
		config: config,
		chat:   openai.NewChatCompletionService(options...),
		models: openai.NewModelService(options...),
		rng:    rng,
	}, nil
}

// Name is the model after "llm:".
func (j *LLMJudge) Name() string { return "llm:" + j.config.Model }

// Rubric is a digest of the instructions and of the settings that change what
// the judge reads.
func (j *LLMJudge) Rubric() string {
	return "sha256:" + forager.Digest(systemPrompt, fmt.Sprint(j.config.MaxPassageChars, j.config.ShowGold, j.config.Temperature))
}

// Label asks the endpoint once, with its retries.
func (j *LLMJudge) Label(ctx context.Context, item Item) (Verdict, error) {
	auth, err := j.auth()
	if err != nil {
		return Verdict{}, err
	}
	j.mu.Lock()
	p := newPrompt(item, j.config.MaxPassageChars, j.config.ShowGold, j.rng)
	j.mu.Unlock()
	answer, err := j.chat.New(ctx, openai.ChatCompletionNewParams{
		Model:       j.config.Model,
		Messages:    []openai.ChatCompletionMessageParamUnion{openai.SystemMessage(p.system), openai.UserMessage(p.user)},
		Temperature: openai.Float(j.config.Temperature),
		MaxTokens:   openai.Int(int64(j.config.MaxTokens)), // the name that every local server knows
	}, auth...)
	if err != nil {
		var status *openai.Error
		if errors.As(err, &status) {
			switch status.StatusCode {
			case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
				return Verdict{}, fmt.Errorf("judge endpoint refuses this step (status %d): %w", status.StatusCode, ErrUnusable)
			}
			return Verdict{}, fmt.Errorf("ask the judge endpoint %s: status %d", j.config.BaseURL, status.StatusCode)
		}
		return Verdict{}, fmt.Errorf("ask the judge endpoint %s: %w", j.config.BaseURL, err)
	}
	if answer == nil || len(answer.Choices) == 0 {
		return Verdict{}, fmt.Errorf("answer without choices: %w", ErrUnusable)
	}
	return p.parse(answer.Choices[0].Message.Content)
}

// Check says whether the endpoint answers, or why not. Any answer counts but a
// refusal of the key; some servers do not list models.
func (j *LLMJudge) Check(ctx context.Context) error {
	auth, err := j.auth()
	if err != nil {
		return err
	}
	_, err = j.models.List(ctx, append(auth, option.WithMaxRetries(0))...)
	var status *openai.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &status):
		if status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden {
			return forager.WithHint(fmt.Errorf("judge endpoint %s refuses the API key (status %d)", j.config.BaseURL, status.StatusCode),
				"set "+j.config.APIKeyEnv+" or llm.api_key_file")
		}
		return nil
	}
	return forager.WithHint(fmt.Errorf("judge endpoint %s does not answer: %w", j.config.BaseURL, err),
		"start it or correct llm.base_url; training goes on without its labels")
}

// auth reads the API key anew, so that a rotated key is used at once.
func (j *LLMJudge) auth() ([]option.RequestOption, error) {
	key := ""
	if j.config.APIKeyFile != "" {
		raw, err := os.ReadFile(j.config.APIKeyFile)
		if err != nil {
			return nil, fmt.Errorf("read the judge's API key: %w", err)
		}
		key = strings.TrimSpace(string(raw))
	} else if j.config.APIKeyEnv != "" {
		key = os.Getenv(j.config.APIKeyEnv)
	}
	if key == "" {
		return nil, nil
	}
	return []option.RequestOption{option.WithAPIKey(key)}, nil
}
