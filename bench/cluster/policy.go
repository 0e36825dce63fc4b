package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/actor"
	"github.com/forager-rl/forager/policy"
)

// paced stands in for the language model: a turn takes a given time and next to
// no processor time. It searches a number of times, then answers.
type paced struct {
	latency  func(seed uint64, turn int) time.Duration
	searches int
	played   actor.PlayedVersion // of the weights that it pretends to have
	turns    atomic.Int64        // finished so far
}

// Generate implements policy.Generator.
func (p *paced) Generate(ctx context.Context, r policy.Request) (policy.Completion, error) {
	turn := 0
	for _, id := range r.Context {
		if id == endInformation {
			turn++
		}
	}
	timer := time.NewTimer(p.latency(r.Seed, turn))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return policy.Completion{}, ctx.Err()
	}
	text := fmt.Sprintf("<answer>place %d</answer>", r.Seed%entities)
	if turn < p.searches {
		text = fmt.Sprintf("<search>where is entity %d</search>", rand.NewPCG(r.Seed, uint64(turn)).Uint64()%entities)
	}
	tokens := letters{}.Encode(text)
	tokens = tokens[:min(len(tokens), r.MaxTokens)]
	logprobs := make([]float32, len(tokens))
	for i := range logprobs {
		logprobs[i] = -1
	}
	p.turns.Add(1)
	return policy.Completion{
		Tokens: tokens, Logprobs: logprobs, Stop: policy.StopString,
		Versions: []forager.VersionSpan{{
			Span: forager.Span{End: int32(len(tokens))}, Version: p.played.Version(),
		}},
	}, nil
}

// Release implements policy.Generator.
func (p *paced) Release(uint64) {}

func always(d time.Duration) func(uint64, int) time.Duration {
	return func(uint64, int) time.Duration { return d }
}

// letters is a tokenizer in which each byte is a token, and each tag of the
// protocol.
type letters struct{}

const firstTag = 256

// endInformation is the token that ends an observation.
const endInformation int32 = firstTag + 5

func tags() []string {
	return []string{"<search>", "</search>", "<answer>", "</answer>", "<information>", "</information>"}
}

// Encode implements policy.Tokenizer.
func (letters) Encode(text string) []int32 {
	ids := make([]int32, 0, len(text))
next:
	for text != "" {
		if text[0] == '<' {
			for i, tag := range tags() {
				if strings.HasPrefix(text, tag) {
					ids = append(ids, firstTag+int32(i))
					text = text[len(tag):]
					continue next
				}
			}
		}
		ids = append(ids, int32(text[0]))
		text = text[1:]
	}
	return ids
}

// EncodePlain implements policy.Tokenizer.
func (letters) EncodePlain(text string) []int32 {
	ids := make([]int32, len(text))
	for i := range len(text) {
		ids[i] = int32(text[i])
	}
	return ids
}

// Decode implements policy.Tokenizer.
func (letters) Decode(ids []int32) string {
	var b strings.Builder
	for _, id := range ids {
		if id >= firstTag {
			b.WriteString(tags()[id-firstTag])
		} else {
			b.WriteByte(byte(id))
		}
	}
	return b.String()
}

// VocabSize implements policy.Tokenizer.
func (letters) VocabSize() int { return firstTag + len(tags()) }

// EOS implements policy.Tokenizer.
func (letters) EOS() int32 { return 0 }

// entities is how many things there are to ask about.
const entities = 512

// corpus has a passage for each entity.
func corpus() []forager.Passage {
	list := make([]forager.Passage, entities)
	for i := range list {
		list[i] = forager.Passage{
			ID: fmt.Sprint("p", i), Title: fmt.Sprintf("Entity %d", i),
			Text: fmt.Sprintf("Entity %d lies in place %d, north of entity %d. ", i, i*7%entities, (i+1)%entities) +
				strings.Repeat("It has a market, a harbour and a long history. ", 4),
		}
	}
	return list
}

// tasks implements actor.Tasks.
type tasks struct{}

// Task implements actor.Tasks.
func (tasks) Task(id string) (forager.Task, error) {
	var n int
	if _, err := fmt.Sscanf(id, "t%d", &n); err != nil || n < 0 || n >= entities {
		return forager.Task{}, fmt.Errorf("task %q: %w", id, forager.ErrNotFound)
	}
	return forager.Task{
		ID: id, Dataset: "bench", Split: forager.Train,
		Question: fmt.Sprintf("In which place does entity %d lie", n), Answers: []string{fmt.Sprintf("place %d", n*7%entities)},
		Gold: []string{fmt.Sprint("p", n)},
	}, nil
}

func taskIDs() []string {
	ids := make([]string, entities)
	for i := range ids {
		ids[i] = fmt.Sprint("t", i)
	}
	return ids
}
