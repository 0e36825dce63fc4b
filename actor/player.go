package actor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/internal/spans"
	"github.com/forager-rl/forager/policy"
	"github.com/forager-rl/forager/reward"
	"github.com/forager-rl/forager/search"
	"github.com/forager-rl/forager/search/protocol"
)

// EpisodeConfig is the rules of an episode.
type EpisodeConfig struct {
	// MaxTurns is the number of actions that may be searches. After them the
	// policy gets one final turn in which searching is disabled.
	MaxTurns int `mapstructure:"max_turns"`
	// MaxActionTokens bounds the tokens of one action.
	MaxActionTokens int `mapstructure:"max_action_tokens"`
	// MaxObservationTokens bounds the passages of one observation; the rest is
	// cut off.
	MaxObservationTokens int `mapstructure:"max_observation_tokens"`
	// MaxTokens bounds the whole episode, prompt included.
	MaxTokens int `mapstructure:"max_tokens"`
	// TopPassages is the number of passages per search.
	TopPassages int `mapstructure:"top_passages"`
	// Temperature divides the logits when training rollouts are sampled; 0 is
	// greedy. Evaluation has its own.
	Temperature float32 `mapstructure:"temperature"`
	// TopK restricts sampling to the most probable tokens; 0 means all.
	TopK int `mapstructure:"top_k"`
	// TopP restricts sampling to the fewest tokens that reach this probability;
	// 1 means all.
	TopP float32 `mapstructure:"top_p"`
	// Template is the prompt: "short" or "search", which are built in, or the
	// path of a text file that contains {question}. Tasks that carry their own
	// prompt do not use it.
	Template string `mapstructure:"template"`
	// Observation is how passages are written: search-r1, verl, skyrl or plain.
	Observation string `mapstructure:"observation"`
}

// DefaultEpisodeConfig suits the built-in policy and tasks.
func DefaultEpisodeConfig() EpisodeConfig {
	return EpisodeConfig{
		MaxTurns: 4, MaxActionTokens: 48, MaxObservationTokens: 128, MaxTokens: 640,
		TopPassages: 1, Temperature: 1, TopP: 1, Template: "short", Observation: "plain",
	}
}

// Validate reports the first rule out of range.
func (c EpisodeConfig) Validate() error {
	for _, f := range []struct {
		name  string
		value int
	}{
		{"max_turns", c.MaxTurns},
		{"max_action_tokens", c.MaxActionTokens},
		{"max_observation_tokens", c.MaxObservationTokens},
		{"max_tokens", c.MaxTokens},
		{"top_passages", c.TopPassages},
	} {
		if f.value < 1 {
			return fmt.Errorf("%s is %d, want at least 1", f.name, f.value)
		}
	}
	switch {
	case c.Temperature < 0:
		return fmt.Errorf("temperature is %g, want 0 or more", c.Temperature)
	case c.TopK < 0:
		return fmt.Errorf("top_k is %d, want 0 or more", c.TopK)
	case c.TopP < 0 || c.TopP > 1:
		return fmt.Errorf("top_p is %g, want 0 to 1", c.TopP)
	}
	return nil
}

// Player plays episodes. It may be used by many goroutines at once.
type Player struct {
	cfg       EpisodeConfig
	name      string // of the actor, recorded in rollouts
	run       string
	generator policy.Generator
	tokenizer policy.Tokenizer
	prompter  Prompter
	stops     []int32
	retriever search.Retriever
	template  protocol.Template
	style     protocol.Style
	clock     func() time.Time
	tracer    trace.Tracer
	sessions  atomic.Uint64
}

// PlayerDeps is what a Player needs from outside; all fields are required but
// for those that say so.
type PlayerDeps struct {
	Run       string
	Actor     string
	Generator policy.Generator
	Tokenizer policy.Tokenizer
	// Prompter may be nil for models that were not trained to chat: the contents
	// of messages follow each other, with a newline between them.
	Prompter Prompter
	// StopTokens end an action beside the vocabulary's end-of-sequence token; may
	// be nil.
	StopTokens []int32
	Retriever  search.Retriever
	Clock      func() time.Time
	Tracer     trace.Tracer // nil traces nothing
}

// NewPlayer reads the prompt template and prepares to play.
func NewPlayer(cfg EpisodeConfig, deps PlayerDeps) (*Player, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("episode: %w", err)
	}
	template, err := protocol.LoadTemplate(cfg.Template)
	if err != nil {
		return nil, err
	}
	style, err := protocol.ParseStyle(cfg.Observation)
	if err != nil {
		return nil, err
	}
	prompter := deps.Prompter
	if prompter == nil {
		prompter = contents{deps.Tokenizer}
	}
	return &Player{
		cfg: cfg, run: deps.Run, name: deps.Actor, generator: deps.Generator, tokenizer: deps.Tokenizer,
		prompter: prompter, stops: deps.StopTokens,
		retriever: deps.Retriever, template: template, style: style, clock: deps.Clock, tracer: spans.TracerOrNone(deps.Tracer),
	}, nil
}

// PlayGroup plays the samples of a credit side by side. It fails as a whole: a
// group is complete or absent. The digests are for the reward server.
func (p *Player) PlayGroup(ctx context.Context, credit forager.Credit, task forager.Task) (forager.Group, []forager.TurnDigest, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rollouts := make([]forager.Rollout, credit.GroupSize)
	digests := make([][]forager.TurnDigest, credit.GroupSize)
	errs := make([]error, credit.GroupSize)
	var wait sync.WaitGroup
	for i := range rollouts {
		wait.Go(func() {
			ctx, span := p.tracer.Start(ctx, "rollout.episode", trace.WithAttributes(attribute.Int(forager.AttributeSample, i)))
			rollouts[i], digests[i], errs[i] = p.Play(ctx, task, SampleSeed(credit.Seed, i), p.cfg.Temperature)
			if errs[i] != nil {
				cancel()
			}
			r := &rollouts[i]
			span.SetAttributes(attribute.String(forager.AttributeFinish, string(r.Finish)), attribute.Int(forager.AttributeTokens, len(r.Tokens)))
			spans.End(span, errs[i])
			r.ID = forager.RolloutID(credit.Run, credit.Index, i)
			r.Run, r.Group, r.Sample = credit.Run, credit.Index, i
			for j := range digests[i] {
				digests[i][j].Run, digests[i][j].RolloutID = r.Run, r.ID
			}
		})
	}
	wait.Wait()
	if err := firstCause(errs); err != nil {
		return forager.Group{}, nil, fmt.Errorf("play credit %d of task %s: %w", credit.Index, task.ID, err)
	}
	return forager.Group{Credit: credit, Rollouts: rollouts}, slices.Concat(digests...), nil
}

// firstCause prefers the error that made the others be cancelled.
func firstCause(errs []error) error {
	var cancelled error
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		if err != nil {
			cancelled = err
		}
	}
	return cancelled
}

// SampleSeed derives the seed of one sample from its credit's.
func SampleSeed(credit uint64, sample int) uint64 {
	return rand.NewPCG(credit, uint64(sample)).Uint64()
}

// episode is one rollout being played.
type episode struct {
	rollout  forager.Rollout
	passages []forager.Passage // all that were shown
	digests  []forager.TurnDigest
	response []byte // text after the prompt, observations included
	spoken   []byte // text of the policy alone
}

// Play plays one episode and scores it with the rule rewards. A retriever that
// fails ends the episode with FinishRetriever; a policy that fails is an error.
// The digests describe its search turns.
func (p *Player) Play(ctx context.Context, task forager.Task, seed uint64, temperature float32) (forager.Rollout, []forager.TurnDigest, error) {
	e := &episode{rollout: forager.Rollout{
		Run: p.run, TaskID: task.ID, Dataset: task.Dataset, Actor: p.name, Seed: seed, Start: p.clock(),
	}}
	session := p.sessions.Add(1)
	defer p.generator.Release(session)
	prompt, err := p.prompt(task)
	if err != nil {
		return e.rollout, nil, err
	}
	e.observe(prompt)
	for turn := 0; e.rollout.Finish == ""; turn++ {
		if err := p.turn(ctx, e, session, turn, temperature); err != nil {
			return e.rollout, nil, err
		}
	}
	e.rollout.End = p.clock()
	for i := range e.digests {
		d := &e.digests[i]
		d.TaskID, d.Question, d.Answer, d.Time = task.ID, task.Question, e.rollout.Answer, e.rollout.End
	}
	e.rollout.Rewards = reward.Score(task, e.rollout, reward.Input{
		Valid:    protocol.ValidFormat(string(e.response)),
		Response: string(e.spoken),
		Passages: e.passages,
		Format:   reward.DefaultFormatConfig(),
	})
	return e.rollout, e.digests, nil
}

// observe appends tokens that the policy did not sample.
func (e *episode) observe(ids []int32) forager.Span {
	start := int32(len(e.rollout.Tokens))
	e.rollout.Tokens = append(e.rollout.Tokens, ids...)
	e.rollout.Logprobs = append(e.rollout.Logprobs, make([]float32, len(ids))...)
	e.rollout.LossMask = append(e.rollout.LossMask, make([]bool, len(ids))...)
	return forager.Span{Start: start, End: int32(len(e.rollout.Tokens))}
}

// act appends tokens that the policy sampled.
func (e *episode) act(c policy.Completion) forager.Span {
	r := &e.rollout
	start := int32(len(r.Tokens))
	r.Tokens = append(r.Tokens, c.Tokens...)
	r.Logprobs = append(r.Logprobs, c.Logprobs...)
	for range c.Tokens {
		r.LossMask = append(r.LossMask, true)
	}
	for _, v := range c.Versions {
		r.Versions = append(r.Versions, forager.VersionSpan{Span: forager.Span{Start: start + v.Start, End: start + v.End}, Version: v.Version})
	}
	return forager.Span{Start: start, End: int32(len(r.Tokens))}
}

// turn lets the policy act once and the environment answer.
func (p *Player) turn(ctx context.Context, e *episode, session uint64, turn int, temperature float32) (err error) {
	r := &e.rollout
	ctx, timed := p.tracer.Start(ctx, "rollout.turn", trace.WithAttributes(attribute.Int(forager.AttributeTurn, turn)))
	defer func() { spans.End(timed, err) }()
	budget := p.cfg.MaxTokens - len(r.Tokens)
	if budget < 1 {
		r.Finish = forager.FinishLength
		return nil
	}
	final := turn >= p.cfg.MaxTurns
	done, err := p.generator.Generate(ctx, policy.Request{
		Session: session, Context: r.Tokens, MaxTokens: min(budget, p.cfg.MaxActionTokens), Stop: protocol.StopStrings(),
		StopTokens: p.stops, Temperature: temperature, TopK: p.cfg.TopK, TopP: p.cfg.TopP, Seed: r.Seed,
	})
	if err != nil {
		return fmt.Errorf("turn %d: %w", turn, err)
	}
	if len(done.Tokens) == 0 { // the model's own context is full
		r.Finish = forager.FinishLength
		return nil
	}
	span := e.act(done)
	// Whoever labels, stores or shows the turn must see the same text.
	text := strings.ToValidUTF8(p.tokenizer.Decode(done.Tokens), "\uFFFD")
	e.response = append(e.response, text...)
	e.spoken = append(e.spoken, text...)
	action := protocol.ParseAction(text)
	timed.SetAttributes(attribute.String(forager.AttributeKind, string(action.Kind)), attribute.Int(forager.AttributeTokens, len(done.Tokens)))
	t := forager.Turn{Kind: action.Kind, Text: action.Text, Action: span}
	switch {
	case action.Kind == forager.TurnAnswer:
		r.Answer, r.Finish = action.Text, forager.FinishAnswer
	case final:
		r.Finish = forager.FinishTurns
	case action.Kind == forager.TurnSearch:
		found, err := p.search(ctx, &t)
		if err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("turn %d: search: %w", turn, ctx.Err())
			}
			r.Finish = forager.FinishRetriever
			break
		}
		e.passages = append(e.passages, found...)
		t.ObservationKey = forager.ObservationKey(found)
		t.Observation = e.observe(p.observation(found))
		e.digest(turn, t.Text, found, p.tokenizer.Decode(r.Tokens[t.Observation.Start:t.Observation.End]))
	default:
		t.Observation = e.observe(p.tokenizer.Encode(protocol.InvalidObservation()))
	}
	if t.Observation.Len() > 0 {
		e.response = append(e.response, p.tokenizer.Decode(r.Tokens[t.Observation.Start:t.Observation.End])...)
	}
	r.Turns = append(r.Turns, t)
	return nil
}

// digest notes a search for the reward server.
func (e *episode) digest(turn int, query string, found []forager.Passage, observation string) {
	d := forager.TurnDigest{Turn: turn, Query: query, Passages: found, Observation: observation}
	if n := len(e.digests); n > 0 {
		last := e.digests[n-1]
		d.Earlier = append(slices.Clone(last.Earlier), last.Query)
	}
	e.digests = append(e.digests, d)
}

// search asks the retriever and notes on the turn what it found.
func (p *Player) search(ctx context.Context, t *forager.Turn) (_ []forager.Passage, err error) {
	ctx, span := p.tracer.Start(ctx, "rollout.search", trace.WithSpanKind(trace.SpanKindClient))
	defer func() { spans.End(span, err) }()
	start := p.clock()
	lists, err := p.retriever.Search(ctx, []string{t.Text}, p.cfg.TopPassages)
	t.Latency = p.clock().Sub(start)
	if err != nil {
		return nil, err
	}
	if len(lists) != 1 {
		return nil, fmt.Errorf("retriever gave %d lists for one query", len(lists))
	}
	for _, passage := range lists[0] {
		t.DocIDs = append(t.DocIDs, passage.ID)
		t.DocScores = append(t.DocScores, passage.Score)
	}
	return lists[0], nil
}

// observation encodes passages between their tags, which survive the cut.
func (p *Player) observation(found []forager.Passage) []int32 {
	open, rest, _ := strings.Cut(protocol.Observation(found, p.style), protocol.OpenInformation)
	body, shut, _ := strings.Cut(rest, protocol.CloseInformation)
	ids := p.tokenizer.Encode(open + protocol.OpenInformation)
	text := p.tokenizer.EncodePlain(body)
	ids = append(ids, text[:min(len(text), p.cfg.MaxObservationTokens)]...)
	return append(ids, p.tokenizer.Encode(protocol.CloseInformation+shut)...)
}
