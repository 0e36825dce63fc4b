package rubric

import (
	"strings"
	"testing"

	"github.com/forager-rl/forager"
)

// BenchmarkPrompt writes and reads one request with ten passages of 1500 characters.
func BenchmarkPrompt(b *testing.B) {
	r, rng, it := load(b, "helpfulness"), random(1), item()
	it.Passages = make([]forager.Passage, 10)
	for i := range it.Passages {
		it.Passages[i] = forager.Passage{Title: "Ana Lund", Text: strings.Repeat("Ana Lund was born. ", 79)}
	}
	b.ReportAllocs()
	for b.Loop() {
		p := r.Prompt(it, PromptOptions{}, rng)
		if _, err := p.Parse(rightAnswer(p, 0)); err != nil {
			b.Fatal(err)
		}
	}
}
