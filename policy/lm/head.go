package lm

import (
	"math"

	"github.com/forager-rl/forager/policy/lm/kernel"
)

// Scores are what the model says of one sequence, by position: 0 where the
// position is not masked.
type Scores struct {
	Logprobs  []float32 // log π(token | earlier tokens)
	Entropies []float32 // of the distribution that the token was drawn from, in nats

	// The gradients of a loss for both, zeroed before the loss fills them; nil
	// when nothing is trained.
	LogprobGrads []float32
	EntropyGrads []float32
}

// logitBytes bounds the logits that exist at once.
const logitBytes = 128 << 20

// logitRows is the number of positions whose logits exist at once.
func (t *Trainer) logitRows() int { return max(1, t.logitBytes/(4*t.model.Arch.VocabSize)) }

// head scores the masked tokens, hands the scores to use sequence by sequence,
// and with gradients wanted turns what use filled in into the gradients of the
// output matrix and of the normalised hidden states, acts.dh. Logits are made
// for a chunk of positions at a time; those of a sequence that needs several
// chunks are made twice.
func (t *Trainer) head(seqs []Sequence, gradients bool, use func(i int, s *Scores)) {
	starts, most := t.packing.wanted.starts, t.logitRows()
	chunks := func(from, to int, f func(from, to int)) {
		for ; from < to; from += most {
			f(from, min(to, from+most))
		}
	}
	for first := 0; first < len(seqs); {
		end := first + 1
		for end < len(seqs) && starts[end+1]-starts[first] <= most {
			end++
		}
		from, to := starts[first], starts[end]
		chunks(from, to, func(from, to int) {
			t.logits(from, to)
			t.score(from, to)
		})
		for i := first; i < end; i++ {
			t.handOver(i, seqs[i], gradients, use)
		}
		if gradients {
			chunks(from, to, func(chunk, chunkEnd int) {
				if to-from > most {
					t.logits(chunk, chunkEnd)
				}
				t.scoreBackward(chunk, chunkEnd)
			})
		}
		first = end
	}
}

// logits fills acts.logits with the tempered logits of wanted rows.
func (t *Trainer) logits(from, to int) {
	d, vocab := t.model.Arch.HiddenSize, t.model.Arch.VocabSize
	logits, n := t.acts.logits, to-from
	t.workers.pool.MatMulTransB(logits, vocab, t.acts.normed[from*d:], d, t.model.params.head, d, n, vocab, d, false)
	if t.cfg.Temperature != 1 {
		t.workers.rows(n, func(from, to int) { kernel.Scale(1/t.cfg.Temperature, logits[from*vocab:to*vocab]) })
	}
}

// score computes log-probabilities and entropies of wanted rows from their
// logits z: log p = z − log Σ exp z, H = log Σ exp z − Σ p·z.
func (t *Trainer) score(first, last int) {
	acts, vocab := &t.acts, t.model.Arch.VocabSize
	t.workers.rowBlocks(last-first, func(thread, _, from, to int) {
		exps := acts.thread[thread].row[:vocab]
		for i := from; i < to; i++ {
			row, k := acts.logits[i*vocab:][:vocab], first+i
			most := kernel.Max(row)
			sum := kernel.ExpShiftSum(exps, row, most)
			acts.logZ[k] = most + float32(math.Log(float64(sum)))
			acts.logp[k] = row[t.packing.target[k]] - acts.logZ[k]
			acts.entropy[k] = acts.logZ[k] - kernel.Dot(exps, row)/sum
		}
	})
}

// handOver gives use the scores of sequence i by position.
func (t *Trainer) handOver(i int, seq Sequence, gradients bool, use func(i int, s *Scores)) {
	acts, s := &t.acts, &t.scores
	from, n := t.packing.wanted.starts[i], len(seq.Tokens)
	byPosition := func(by *[]float32, wanted []float32) {
		*by = grow(*by, n)
		clear(*by)
		k := from
		for j, masked := range seq.Mask {
			if masked {
				(*by)[j] = wanted[k]
				k++
			}
		}
	}
	byPosition(&s.Logprobs, acts.logp)
	byPosition(&s.Entropies, acts.entropy)
	if !gradients {
		use(i, &Scores{Logprobs: s.Logprobs, Entropies: s.Entropies})
		return
	}
	s.LogprobGrads, s.EntropyGrads = grow(s.LogprobGrads, n), grow(s.EntropyGrads, n)
	clear(s.LogprobGrads)
	clear(s.EntropyGrads)
	use(i, s)
	k := from
	for j, masked := range seq.Mask {
		if masked {
			acts.dLogp[k], acts.dH[k] = s.LogprobGrads[j], s.EntropyGrads[j]
			k++
		}
	}
}

// scoreBackward turns the logits z of wanted rows into their gradient,
//
//	dz = dlogp·(onehot(target) − p) − dH·p·(log p + H)
//
// and that into the gradients of hidden states and output matrix.
func (t *Trainer) scoreBackward(first, last int) {
	a, acts := t.model.Arch, &t.acts
	d, vocab := a.HiddenSize, a.VocabSize
	t.workers.rowBlocks(last-first, func(thread, _, from, to int) {
		probs := acts.thread[thread].row[:vocab]
		for i := from; i < to; i++ {
			row, k := acts.logits[i*vocab:][:vocab], first+i
			dLogp, dH := acts.dLogp[k]/t.cfg.Temperature, acts.dH[k]/t.cfg.Temperature
			if dH == 0 {
				kernel.ExpShiftSum(row, row, acts.logZ[k])
				kernel.Scale(-dLogp, row)
			} else {
				kernel.ExpShiftSum(probs, row, acts.logZ[k])
				kernel.Mul(row, row, probs, -dH)
				kernel.Axpy(-dLogp-dH*(acts.entropy[k]-acts.logZ[k]), probs, row)
			}
			row[t.packing.target[k]] += dLogp
		}
	})
	pool, n := t.workers.pool, last-first
	pool.MatMul(acts.dh[first*d:], d, acts.logits, vocab, t.model.params.head, d, n, d, vocab, false)
	if t.grads.head != nil {
		pool.MatMulTransA(t.grads.head, d, acts.logits, vocab, acts.normed[first*d:], d, vocab, d, n, true)
	}
}
