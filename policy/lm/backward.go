package lm

import (
	"math"

	"github.com/forager-rl/forager/policy/lm/kernel"
)

// headRows bounds the rows of logits that exist at once.
const headRows = 1024

// head computes the log-probabilities of masked tokens, hands them to use
// sequence by sequence, and with gradients wanted turns dLoss/dlogp into the
// gradients of the output matrix and of the final hidden states. Only masked
// positions are multiplied with the vocabulary, and at most about headRows of
// them (or one sequence) at a time.
func (t *Trainer) head(seqs []Sequence, gradients bool, use func(i int, logp, grad []float32)) {
	a, acts, p := t.model.Arch, &t.acts, t.model.params
	d, vocab := a.HiddenSize, a.VocabSize
	if gradients {
		acts.dNormed = grow(acts.dNormed, acts.rows*d)
		clear(acts.dNormed)
	}
	var rows []int // of the activations, predicting one masked token each
	var targets []int32
	flush := func(first, end int) {
		n := len(rows)
		acts.gathered = grow(acts.gathered, n*d)
		acts.logits = grow(acts.logits, n*vocab)
		for i, r := range rows {
			copy(acts.gathered[i*d:][:d], acts.normed[r*d:][:d])
		}
		t.workers.pool.MatMulTransB(acts.logits, vocab, acts.gathered, d, p.head, d, n, vocab, d, false)
		logps := make([]float32, n)
		t.workers.rows(n, func(_, from, to int) {
			for i := from; i < to; i++ {
				row := acts.logits[i*vocab:][:vocab]
				if t.cfg.Temperature != 1 {
					kernel.Scale(1/t.cfg.Temperature, row)
				}
				most := kernel.Max(row)
				target := row[targets[i]]
				sum := kernel.ExpShiftSum(row, row, most) // logits become unnormalised probabilities
				logps[i] = target - most - float32(math.Log(float64(sum)))
				if gradients {
					kernel.Scale(1/sum, row)
				}
			}
		})
		dLogps := make([]float32, n)
		k := 0
		for i := first; i < end; i++ {
			s := seqs[i]
			logp := grow(acts.scratchLogp, len(s.Tokens))
			grad := grow(acts.scratchGrad, len(s.Tokens))
			acts.scratchLogp, acts.scratchGrad = logp, grad
			clear(logp)
			clear(grad)
			from := k
			for j, m := range s.Mask {
				if m {
					logp[j] = logps[k]
					k++
				}
			}
			use(i, logp, grad)
			k = from
			for j, m := range s.Mask {
				if m {
					dLogps[k] = grad[j]
					k++
				}
			}
		}
		if gradients {
			// dlogits = dlogp · (onehot(target) − probabilities) / temperature
			t.workers.rows(n, func(_, from, to int) {
				for i := from; i < to; i++ {
					row := acts.logits[i*vocab:][:vocab]
					slope := dLogps[i] / t.cfg.Temperature
					kernel.Scale(-slope, row)
					row[targets[i]] += slope
				}
			})
			acts.dGathered = grow(acts.dGathered, n*d)
			t.workers.pool.MatMul(acts.dGathered, d, acts.logits, vocab, p.head, d, n, d, vocab, false)
			t.workers.pool.MatMulTransA(t.grads.head, d, acts.logits, vocab, acts.gathered, d, vocab, d, n, true)
			for i, r := range rows {
				kernel.Add(acts.dNormed[r*d:][:d], acts.dGathered[i*d:][:d])
			}
		}
		rows, targets = rows[:0], targets[:0]
	}
	first := 0
	for i, s := range seqs {
		for j, m := range s.Mask {
			if m {
				rows = append(rows, acts.starts[i]+j-1)
				targets = append(targets, s.Tokens[j])
			}
		}
		if len(rows) >= headRows || i == len(seqs)-1 {
			flush(first, i+1)
			first = i + 1
		}
	}
}

// backward adds the gradients of a batch, starting from acts.dNormed.
func (t *Trainer) backward(seqs []Sequence) {
	a, acts, p, g := t.model.Arch, &t.acts, t.model.params, t.grads
	d, q, kv, f, rows := a.HiddenSize, a.Heads*a.HeadDim, a.KVHeads*a.HeadDim, a.IntermediateSize, acts.rows
	width := q + 2*kv
	pool := t.workers.pool
	acts.dx = grow(acts.dx, rows*d)
	acts.dh = grow(acts.dh, rows*d)
	acts.dQKV = grow(acts.dQKV, rows*width)
	acts.dAttn = grow(acts.dAttn, rows*q)
	acts.dGateUp = grow(acts.dGateUp, rows*2*f)
	acts.dAct = grow(acts.dAct, rows*f)
	clear(acts.dx)
	t.normBackward(g.norm, acts.dNormed, acts.final, p.norm, acts.scale)
	position := t.positions()
	for l := len(acts.layers) - 1; l >= 0; l-- {
		la, w, gw := &acts.layers[l], p.layers[l], g.layers[l]

		// MLP: next = mid + down(silu(gate)·up)
		pool.MatMul(acts.dAct, f, acts.dx, d, w.down, f, rows, f, d, false)
		pool.MatMulTransA(gw.down, f, acts.dx, d, la.act, f, d, f, rows, true)
		t.workers.rows(rows, func(_, from, to int) {
			for r := from; r < to; r++ {
				gu, dgu := la.gateUp[r*2*f:][:2*f], acts.dGateUp[r*2*f:][:2*f]
				kernel.SiluMulBackward(dgu[:f], dgu[f:], acts.dAct[r*f:][:f], gu[:f], gu[f:])
			}
		})
		pool.MatMul(acts.dh, d, acts.dGateUp, 2*f, w.gateUp, d, rows, d, 2*f, false)
		pool.MatMulTransA(gw.gateUp, d, acts.dGateUp, 2*f, la.h2, d, 2*f, d, rows, true)
		t.normBackward(gw.mlpNorm, acts.dh, la.mid, w.mlpNorm, la.mlpNorm)

		// Attention: mid = x + out(attention(rotated q, k, v))
		pool.MatMul(acts.dAttn, q, acts.dx, d, w.out, q, rows, q, d, false)
		pool.MatMulTransA(gw.out, q, acts.dx, d, la.attn, q, d, q, rows, true)
		t.attentionBackward(la)
		t.workers.rows(rows, func(_, from, to int) {
			for r := from; r < to; r++ {
				t.rope.back(acts.dQKV[r*width:][:q+kv], position[r])
			}
		})
		pool.MatMul(acts.dh, d, acts.dQKV, width, w.qkv, d, rows, d, width, false)
		pool.MatMulTransA(gw.qkv, d, acts.dQKV, width, la.h1, d, width, d, rows, true)
		t.normBackward(gw.attnNorm, acts.dh, la.x, w.attnNorm, la.attnNorm)
	}
	for i, s := range seqs {
		for j, id := range s.Tokens {
			kernel.Add(g.embed[int(id)*d:][:d], acts.dx[(acts.starts[i]+j)*d:][:d])
		}
	}
}

// normBackward adds the gradient of a norm to acts.dx and to dGain. Gains are
// summed per block of rows and then in order, so that the result does not
// depend on the number of threads.
func (t *Trainer) normBackward(dGain, dy, x, gain, scale []float32) {
	d, acts := t.model.Arch.HiddenSize, &t.acts
	acts.gains = grow(acts.gains, blocks(acts.rows)*d)
	clear(acts.gains)
	t.workers.rows(acts.rows, func(block, from, to int) {
		part, scratch := acts.gains[block*d:][:d], make([]float32, d)
		for r := from; r < to; r++ {
			rmsNormBackward(acts.dx[r*d:][:d], part, dy[r*d:][:d], x[r*d:][:d], gain, scratch, scale[r])
		}
	})
	for b := range blocks(acts.rows) {
		kernel.Add(dGain, acts.gains[b*d:][:d])
	}
}

// attentionBackward fills acts.dQKV from acts.dAttn, making the probabilities
// again from scores and log-sum-exp. Threads share out sequences and key-value
// heads, so that no two write the same gradient.
func (t *Trainer) attentionBackward(la *layerActivations) {
	a, acts := t.model.Arch, &t.acts
	dim, q, kv := a.HeadDim, a.Heads*a.HeadDim, a.KVHeads*a.HeadDim
	width := q + 2*kv
	share := a.Heads / a.KVHeads
	scale := float32(1 / math.Sqrt(float64(dim)))
	clear(acts.dQKV)
	t.scratch(&acts.probs)
	t.scratch(&acts.dProbs)
	t.workers.each((len(acts.starts)-1)*a.KVHeads, func(own *kernel.Pool, thread, i int) {
		seq, kvHead := i/a.KVHeads, i%a.KVHeads
		start, end := acts.starts[seq], acts.starts[seq+1]
		k := start*width + q + kvHead*dim
		v := k + kv
		for head := kvHead * share; head < (kvHead+1)*share; head++ {
			for from := start; from < end; from += attentionBlock {
				to := min(end, from+attentionBlock)
				m, n := to-from, to-start
				acts.probs[thread] = grow(acts.probs[thread], attentionBlock*n)
				acts.dProbs[thread] = grow(acts.dProbs[thread], attentionBlock*n)
				probs, dProbs := acts.probs[thread], acts.dProbs[thread]
				queries := la.qkv[from*width+head*dim:]
				dOut := acts.dAttn[from*q+head*dim:]
				own.MatMulTransB(probs, n, queries, width, la.qkv[k:], width, m, n, dim, false)
				own.MatMulTransB(dProbs, n, dOut, q, la.qkv[v:], width, m, n, dim, false)
				for r := from; r < to; r++ {
					row, dRow := probs[(r-from)*n:][:n], dProbs[(r-from)*n:][:n]
					seen := r - start + 1
					kernel.Scale(scale, row[:seen])
					kernel.ExpShiftSum(row[:seen], row[:seen], la.lse[head*acts.rows+r])
					clear(row[seen:])
					// dscore = p · (dp − Σ p·dp), and Σ p·dp = dout·out
					dot := kernel.Dot(acts.dAttn[r*q+head*dim:][:dim], la.attn[r*q+head*dim:][:dim])
					for j := range seen {
						dRow[j] = row[j] * (dRow[j] - dot) * scale
					}
					clear(dRow[seen:])
				}
				own.MatMulTransA(acts.dQKV[v:], width, probs, n, dOut, q, n, dim, m, true)
				own.MatMul(acts.dQKV[from*width+head*dim:], width, dProbs, n, la.qkv[k:], width, m, dim, n, false)
				own.MatMulTransA(acts.dQKV[k:], width, dProbs, n, queries, width, n, dim, m, true)
			}
		}
	})
}
