package tokenizer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// plainTrain counts all pairs anew before each merge.
func plainTrain(t *trainer, size int) {
	for len(t.spelling) < size {
		clear(t.counts)
		for _, w := range t.words {
			t.count(w, 1)
		}
		best := countedPair{count: 1}
		for p, n := range t.counts {
			if t.reserved[t.spelling[p.left]+t.spelling[p.right]] {
				continue
			}
			if q := (pairQueue{{p, n}, best}); q.Less(0, 1) {
				best = q[0]
			}
		}
		if best.count < 2 {
			return
		}
		rule := mergeRule{t.spelling[best.left], t.spelling[best.right]}
		id, known := t.ids[rule[0]+rule[1]]
		if !known {
			id = int32(len(t.spelling))
			t.spelling = append(t.spelling, rule[0]+rule[1])
			t.ids[rule[0]+rule[1]] = id
		}
		t.rules = append(t.rules, rule)
		for i := range t.words {
			t.words[i].tokens = merge{best.pair, id}.apply(t.words[i].tokens)
		}
	}
}

func TestTrainAgainstPlain(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for round := range 20 {
		var text strings.Builder
		for range 400 {
			text.WriteByte("aaabbc  "[random.IntN(8)])
		}
		added := []string{"<e>", "ab"}
		words := countWords(slices.Values([]string{text.String()}), newMatcher(nil))
		fast, plain := newTrainer(words, added), newTrainer(words, added)
		fast.run(330)
		plainTrain(plain, 330)
		if !slices.Equal(fast.rules, plain.rules) || !slices.Equal(fast.spelling, plain.spelling) {
			t.Fatalf("round %d:\n%v\n%v", round, fast.rules, plain.rules)
		}
		if _, made := fast.ids["ab"]; made {
			t.Fatal("a merge made an added token")
		}
	}
}

func TestTrainIgnoresOrderOfTexts(t *testing.T) {
	written := func(texts []string) string {
		tok, err := Train(slices.Values(texts), TrainOptions{VocabSize: 320, EOS: "<|endoftext|>"})
		if err != nil {
			t.Fatal(err)
		}
		data, err := tok.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	backwards := slices.Clone(episodes)
	slices.Reverse(backwards)
	if written(episodes) != written(backwards) {
		t.Error("the tokeniser depends on the order of the texts")
	}
}

func TestTrainLayout(t *testing.T) {
	tok := small(t)
	if tok.VocabSize() != 300 || tok.EOS() != 297 {
		t.Errorf("%d tokens, end %d", tok.VocabSize(), tok.EOS())
	}
	for i, token := range []string{"<|endoftext|>", "<search>", "</search>"} {
		if id, _ := tok.ID(token); id != int32(297+i) {
			t.Errorf("%s is %d", token, id)
		}
	}
	// Without text there are only bytes and added tokens.
	tok, err := Train(slices.Values([]string{}), TrainOptions{VocabSize: 300, Added: []string{"<e>", "<f>"}, EOS: "<e>"})
	if err != nil || tok.VocabSize() != 258 || tok.EOS() != 256 {
		t.Errorf("no text: %v, %v", tok, err)
	}
}

func TestTrainRefusesBadOptions(t *testing.T) {
	for want, opts := range map[string]TrainOptions{
		"want 258 to":      {VocabSize: 257, Added: []string{"<a>"}, EOS: "<e>"},
		"no end":           {VocabSize: 300},
		"too short":        {VocabSize: 300, Added: []string{"é"}, EOS: "<e>"},
		"repeated":         {VocabSize: 300, Added: []string{"<a>", "<a>"}, EOS: "<e>"},
		"not valid UTF-8":  {VocabSize: 300, Added: []string{"<\xff>"}, EOS: "<e>"},
		`"" is too short`:  {VocabSize: 300, Added: []string{""}, EOS: "<e>"},
		"4194305 tokens":   {VocabSize: maxID + 1, EOS: "<e>"},
		"vocabulary of -1": {VocabSize: -1, EOS: "<e>"},
	} {
		if _, err := Train(slices.Values(episodes), opts); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", opts, err, want)
		}
	}
}

// prose is reproducible text with about as many distinct words as a book.
func prose(size int) []string {
	random := rand.New(rand.NewPCG(5, 6))
	syllables := strings.Fields("ba ka to mi ren sol an er the in ti on ver al st pre qu or ing ly")
	words := make([]string, 20_000)
	for i := range words {
		for range 1 + random.IntN(4) {
			words[i] += syllables[random.IntN(len(syllables))]
		}
	}
	var texts []string
	for total := 0; total < size; {
		var b strings.Builder
		for range 100 {
			rare := random.Float64() * random.Float64() * random.Float64()
			fmt.Fprintf(&b, "%s ", words[int(rare*float64(len(words)))])
		}
		texts = append(texts, b.String())
		total += b.Len()
	}
	return texts
}

func BenchmarkTrain(b *testing.B) {
	for _, size := range []int{1 << 20, 4 << 20} {
		b.Run(fmt.Sprintf("size=%dMiB/vocab=1024", size>>20), func(b *testing.B) {
			texts := prose(size)
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := Train(slices.Values(texts), TrainOptions{VocabSize: 1024, EOS: "<|endoftext|>"}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	texts := prose(1 << 18)
	tok, err := Train(slices.Values(texts), TrainOptions{VocabSize: 1024, EOS: "<|endoftext|>"})
	if err != nil {
		b.Fatal(err)
	}
	text := strings.Join(texts, "\n")
	b.SetBytes(int64(len(text)))
	tokens := 0
	for b.Loop() {
		tokens += len(tok.Encode(text))
	}
	b.ReportMetric(float64(tokens)/b.Elapsed().Seconds(), "tokens/s")
}
