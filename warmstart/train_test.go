package warmstart

import (
	"github.com/forager-rl/forager/policy/tokenizer"
	"github.com/forager-rl/forager/search/worldfacts"
	"math/rand/v2"
	"testing"
)

func TestShow(t *testing.T) {
	cfg := DefaultConfig()
	real, _ := worldfacts.Real()
	names := worldfacts.NewNames(real)
	tok, err := tokenizer.Train(texts(cfg, names), tokenizer.TrainOptions{VocabSize: cfg.VocabSize, Added: tags, EOS: endOfSequence})
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDemonstrator(cfg.Episode, tok, newNamer(names, tok).using)
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for i := range 60 {
		s, err := d.play(t.Context(), rand.New(rand.NewPCG(1, uint64(i))), lesson{maxHops: 3, stopEarly: 0.3})
		if err != nil {
			t.Fatal(err)
		}
		if i < 6 {
			t.Logf("%d tokens: %s", len(s.Tokens), tok.Decode(s.Tokens))
		}
		total += len(s.Tokens)
	}
	t.Log(total / 60)
}

func BenchmarkBatch(b *testing.B) {
	cfg := DefaultConfig()
	real, _ := worldfacts.Real()
	names := worldfacts.NewNames(real)
	tok, _ := tokenizer.Train(texts(cfg, names), tokenizer.TrainOptions{VocabSize: cfg.VocabSize, Added: tags, EOS: endOfSequence})
	s := &school{cfg: cfg, tokenizer: tok, names: newNamer(names, tok)}
	for b.Loop() {
		if _, err := s.batch(b.Context(), lesson{maxHops: 3}); err != nil {
			b.Fatal(err)
		}
	}
}
