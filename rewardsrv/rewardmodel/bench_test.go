package rewardmodel

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// invented makes a turn of three passages of the usual length, 240 words in all.
func invented(rng *rand.Rand) Example {
	text := func(n int) string {
		var b strings.Builder
		for range n {
			fmt.Fprintf(&b, "word%d ", int(rng.ExpFloat64()*200))
		}
		return strings.TrimSpace(b.String())
	}
	var o strings.Builder
	o.WriteString("\n\n<information>")
	for i := range 3 {
		fmt.Fprintf(&o, "Doc %d(Title: \"%s\") %s\n", i+1, text(2), text(80))
	}
	o.WriteString("</information>\n\n")
	return Example{Question: text(15), Query: text(5), Observation: o.String()}
}

func BenchmarkScore(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	t, err := NewTrainer(DefaultConfig(), 1)
	if err != nil {
		b.Fatal(err)
	}
	examples := make([]Example, 64)
	for i := range examples {
		examples[i] = invented(rng)
		t.Add(examples[i], float64(i%2))
	}
	t.Train(len(examples))
	model := t.Snapshot()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		model.Score(examples[i%len(examples)])
	}
}

func BenchmarkAdd(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	t, err := NewTrainer(DefaultConfig(), 1)
	if err != nil {
		b.Fatal(err)
	}
	examples := make([]Example, 64)
	for i := range examples {
		examples[i] = invented(rng)
	}
	for i := 0; b.Loop(); i++ {
		t.Add(examples[i%len(examples)], float64(i%2))
	}
}

// BenchmarkTrain is one arrival of labels: 32 gradient steps.
func BenchmarkTrain(b *testing.B) {
	for _, kind := range []Kind{Classification, Ranking} {
		b.Run(string(kind), func(b *testing.B) {
			rng := rand.New(rand.NewPCG(1, 1))
			config := DefaultConfig()
			config.Kind = kind
			t, err := NewTrainer(config, 1)
			if err != nil {
				b.Fatal(err)
			}
			for i := range 2000 {
				t.Add(invented(rng), float64(i%2))
				t.AddPair(invented(rng), invented(rng), float64(i%2))
			}
			for b.Loop() {
				t.Train(1)
			}
		})
	}
}
