package lm

import "fmt"

// Sequence is one token sequence and the positions whose log-probabilities are
// asked for. Mask[0] must be false: nothing predicts the first token.
type Sequence struct {
	Tokens []int32
	Mask   []bool
}

func (a Architecture) checkSequences(seqs []Sequence) error {
	for i, s := range seqs {
		switch {
		case len(s.Tokens) == 0 || len(s.Tokens) != len(s.Mask):
			return fmt.Errorf("sequence %d has %d tokens and %d mask entries", i, len(s.Tokens), len(s.Mask))
		case len(s.Tokens) > a.ContextLength:
			return fmt.Errorf("sequence %d has %d tokens, the model's context is %d", i, len(s.Tokens), a.ContextLength)
		case s.Mask[0]:
			return fmt.Errorf("sequence %d masks its first token, which nothing predicts", i)
		}
		for _, id := range s.Tokens {
			if id < 0 || int(id) >= a.VocabSize {
				return fmt.Errorf("sequence %d holds token %d, the vocabulary has %d", i, id, a.VocabSize)
			}
		}
	}
	return nil
}

// microBatch is a run of consecutive sequences within the token budget.
type microBatch struct {
	first int
	seqs  []Sequence
}

func (t *Trainer) microBatches(seqs []Sequence) []microBatch {
	var list []microBatch
	start, tokens := 0, 0
	for i, s := range seqs {
		if i > start && tokens+len(s.Tokens) > t.cfg.MicroBatchTokens {
			list = append(list, microBatch{start, seqs[start:i]})
			start, tokens = i, 0
		}
		tokens += len(s.Tokens)
	}
	if start < len(seqs) {
		list = append(list, microBatch{start, seqs[start:]})
	}
	return list
}

// packing lays the sequences of a micro-batch one after another without
// padding: a row is one token.
type packing struct {
	tokens   []int32
	position []int // of each row in its sequence
	longest  int   // sequence, in tokens

	all    rowSet
	wanted rowSet  // rows that predict a masked token
	target []int32 // the masked token of each wanted row
}

// rowSet is some rows of a packing, ascending.
type rowSet struct {
	rows   []int
	starts []int // of each sequence's first row in rows, and their number at the end
}

func (p *packing) sequences() int { return len(p.all.starts) - 1 }

// fill packs seqs as far as masked tokens need them: the last masked token and
// what follows it are left out. With every set, all rows are packed and wanted,
// and target stays empty.
func (p *packing) fill(seqs []Sequence, every bool) {
	p.tokens, p.position, p.target, p.longest = p.tokens[:0], p.position[:0], p.target[:0], 0
	p.all.reset()
	p.wanted.reset()
	for _, s := range seqs {
		n := len(s.Tokens)
		if !every {
			n = lastMasked(s.Mask)
		}
		p.longest = max(p.longest, n)
		for j, id := range s.Tokens[:n] {
			row := len(p.tokens)
			p.tokens = append(p.tokens, id)
			p.position = append(p.position, j)
			p.all.rows = append(p.all.rows, row)
			switch {
			case every:
				p.wanted.rows = append(p.wanted.rows, row)
			case s.Mask[j+1]:
				p.wanted.rows = append(p.wanted.rows, row)
				p.target = append(p.target, s.Tokens[j+1])
			}
		}
		p.all.next()
		p.wanted.next()
	}
}

// lastMasked is the last masked position, 0 when there is none.
func lastMasked(mask []bool) int {
	for j := len(mask) - 1; j > 0; j-- {
		if mask[j] {
			return j
		}
	}
	return 0
}

func (s *rowSet) reset() {
	s.rows, s.starts = s.rows[:0], append(s.starts[:0], 0)
}

func (s *rowSet) next() { s.starts = append(s.starts, len(s.rows)) }
