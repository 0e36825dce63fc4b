package tokenizer

import (
	"cmp"
	"container/heap"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// TrainOptions says what vocabulary to train.
type TrainOptions struct {
	// VocabSize is the number of tokens in all: 256 bytes, merges, EOS, Added.
	VocabSize int
	// Added are tokens that are never split nor made by merges, such as
	// "<search>". They get the last ids, in this order.
	Added []string
	// EOS is the end-of-sequence token. Unless it is among Added, its id comes
	// just before theirs.
	EOS string
}

// Train learns byte-level BPE merges from texts, which are cut into words by
// GPT-2's rule. The same texts, in any order, give the same tokeniser: of the
// pairs that occur most often the one with the smaller ids is merged. A pair
// must occur twice, so that a small text may give fewer tokens than asked for.
// Source: Sennrich et al. 2016, algorithm 1, with pair counts kept up to date
// instead of recounted.
func Train(texts iter.Seq[string], opts TrainOptions) (*Tokenizer, error) {
	added := opts.Added
	if !slices.Contains(added, opts.EOS) {
		added = append([]string{opts.EOS}, added...)
	}
	if err := checkAdded(added, opts); err != nil {
		return nil, fmt.Errorf("train tokenizer: %w", err)
	}
	var cut []match
	for _, token := range added {
		cut = append(cut, match{content: token})
	}
	t := newTrainer(countWords(texts, newMatcher(cut)), added)
	t.run(opts.VocabSize - len(added))

	f := file{stages: gpt2Stages(), Model: model{flags{Type: "BPE"}, t.ids, t.rules}}
	for i, token := range added {
		f.Added = append(f.Added, addedToken{ID: int32(len(t.ids) + i), Content: token, Special: token == opts.EOS})
	}
	tok, err := build(f)
	if err != nil {
		return nil, fmt.Errorf("train tokenizer: %w", err)
	}
	return tok, nil
}

func checkAdded(added []string, opts TrainOptions) error {
	if least := 256 + len(added); opts.VocabSize < least || opts.VocabSize > maxID {
		return fmt.Errorf("vocabulary of %d tokens, want %d to %d", opts.VocabSize, least, maxID)
	}
	seen := map[string]bool{}
	for _, token := range added {
		switch {
		case token == "" && opts.EOS == "":
			return fmt.Errorf("no end-of-sequence token")
		case len([]rune(token)) < 2:
			return fmt.Errorf("added token %q is too short: it could be a byte", token)
		case seen[token]:
			return fmt.Errorf("added token %q is repeated", token)
		case !utf8.ValidString(token):
			return fmt.Errorf("added token %q is not valid UTF-8", token)
		}
		seen[token] = true
	}
	return nil
}

// countWords counts the words between added tokens.
func countWords(texts iter.Seq[string], added *matcher) map[string]int {
	counts := map[string]*int{}
	for text := range texts {
		for text != "" {
			start, end, _ := added.find(text, 0, nil)
			for piece := text[:start]; piece != ""; {
				n := gpt2Word(piece)
				if count, ok := counts[piece[:n]]; ok {
					*count++
				} else {
					counts[strings.Clone(piece[:n])] = new(1)
				}
				piece = piece[n:]
			}
			text = text[end:]
		}
	}
	out := make(map[string]int, len(counts))
	for word, count := range counts {
		out[word] = *count
	}
	return out
}

// trainer holds every distinct word as tokens, and how often each pair of
// neighbours occurs in them.
type trainer struct {
	spelling []string // by id
	ids      vocabulary
	rules    []mergeRule
	reserved map[string]bool // spellings that no merge may make

	words  []countedWord
	counts map[pair]int
	where  map[pair][]int // words that have the pair, or had it before a merge
	queue  pairQueue
}

type countedWord struct {
	tokens []int32
	count  int
}

func newTrainer(words map[string]int, added []string) *trainer {
	t := &trainer{ids: vocabulary{}, reserved: map[string]bool{}, counts: map[pair]int{}, where: map[pair][]int{}}
	for _, token := range added {
		t.reserved[token] = true
	}
	letters := newAlphabet()
	chars := slices.Clone(letters.char[:])
	slices.Sort(chars) // the order of GPT-2 and of the tokenizers library: "!" is 0
	for id, char := range chars {
		t.spelling = append(t.spelling, string(char))
		t.ids[string(char)] = int32(id)
	}
	for _, word := range slices.Sorted(maps.Keys(words)) {
		w := countedWord{make([]int32, len(word)), words[word]}
		for i := range len(word) {
			w.tokens[i] = t.ids[string(letters.char[word[i]])]
		}
		t.words = append(t.words, w)
		t.count(w, 1)
		for i := 1; i < len(w.tokens); i++ {
			t.note(pair{w.tokens[i-1], w.tokens[i]}, len(t.words)-1)
		}
	}
	for p := range t.counts {
		t.queue = append(t.queue, countedPair{p, t.counts[p]})
	}
	heap.Init(&t.queue)
	return t
}

// count adds (sign 1) or takes away (sign -1) the pairs of a word.
func (t *trainer) count(w countedWord, sign int) {
	for i := 1; i < len(w.tokens); i++ {
		t.counts[pair{w.tokens[i-1], w.tokens[i]}] += sign * w.count
	}
}

// note remembers that a word has a pair.
func (t *trainer) note(p pair, index int) {
	if at := t.where[p]; len(at) == 0 || at[len(at)-1] != index {
		t.where[p] = append(at, index)
	}
}

// run merges until there are size tokens.
func (t *trainer) run(size int) {
	for len(t.spelling) < size && len(t.queue) > 0 {
		best := heap.Pop(&t.queue).(countedPair)
		if now := t.counts[best.pair]; now != best.count {
			if 0 < now && now < best.count { // a merge next to it took some
				heap.Push(&t.queue, countedPair{best.pair, now})
			}
			continue
		}
		if best.count < 2 {
			return
		}
		rule := mergeRule{t.spelling[best.left], t.spelling[best.right]}
		token := rule[0] + rule[1]
		if t.reserved[token] {
			continue
		}
		id, known := t.ids[token] // "ab"+"c" may follow "a"+"bc"
		if !known {
			id = int32(len(t.spelling))
			t.spelling = append(t.spelling, token)
			t.ids[token] = id
		}
		t.rules = append(t.rules, rule)
		t.merge(merge{best.pair, id})
	}
}

// merge applies a merge to every word that has its pair.
func (t *trainer) merge(m merge) {
	grown := map[pair]bool{}
	for _, index := range t.where[m.pair] {
		w := &t.words[index]
		t.count(*w, -1)
		w.tokens = m.apply(w.tokens)
		t.count(*w, 1)
		for i := 1; i < len(w.tokens); i++ {
			if w.tokens[i-1] == m.id || w.tokens[i] == m.id {
				p := pair{w.tokens[i-1], w.tokens[i]}
				t.note(p, index)
				grown[p] = true
			}
		}
	}
	delete(t.where, m.pair)
	delete(t.counts, m.pair)
	for p := range grown {
		heap.Push(&t.queue, countedPair{p, t.counts[p]})
	}
}

// apply joins the pair wherever it occurs, in place.
func (m merge) apply(tokens []int32) []int32 {
	kept := tokens[:0]
	for i := 0; i < len(tokens); i++ {
		if i+1 < len(tokens) && tokens[i] == m.left && tokens[i+1] == m.right {
			kept = append(kept, m.id)
			i++
		} else {
			kept = append(kept, tokens[i])
		}
	}
	return kept
}

type countedPair struct {
	pair
	count int
}

// pairQueue gives the pair with the highest count, and of equals the smallest.
// Counts may be out of date; the trainer compares them when it pops.
type pairQueue []countedPair

func (q pairQueue) Len() int      { return len(q) }
func (q pairQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q pairQueue) Less(i, j int) bool {
	a, b := q[i], q[j]
	return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.left, b.left), cmp.Compare(a.right, b.right)) < 0
}

// Push and Pop are for container/heap.
func (q *pairQueue) Push(x any) { *q = append(*q, x.(countedPair)) }

// Pop removes the last element.
func (q *pairQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}
