package lm

import (
	"math"

	"github.com/forager-rl/forager/policy/lm/kernel"
)

// activations are what a forward pass leaves for the backward pass. Sequences
// are packed one after another without padding; row r is one token. Buffers
// grow and are reused.
type activations struct {
	rows   int
	starts []int // first row of each sequence, and the total at the end
	layers []layerActivations
	final  []float32 // [rows, hidden] residual stream after the last layer
	normed []float32 // [rows, hidden] its normalised form
	scale  []float32 // [rows] factor of the final norm

	// Scratch of the backward pass.
	dNormed, dx, dh, dQKV, dAttn, dGateUp, dAct []float32
	gains                                       []float32 // [blocks, hidden] partial gradients of a norm's gain
	probs, dProbs                               [][]float32
	logits                                      []float32
	gathered, dGathered                         []float32
	scratchLogp, scratchGrad                    []float32
}

type layerActivations struct {
	x        []float32 // [rows, hidden] residual stream before the layer
	attnNorm []float32 // [rows] factor of the norm
	h1       []float32 // [rows, hidden] normalised
	rawQK    []float32 // [rows, q + kv] before the norms of heads, where the model has them
	headNorm []float32 // [rows, heads + kvHeads] factors of these norms
	qkv      []float32 // [rows, q + 2·kv], rotated
	attn     []float32 // [rows, q] attention's output before its projection
	lse      []float32 // [heads, rows] log-sum-exp of the scores
	mid      []float32 // [rows, hidden] residual stream after attention
	mlpNorm  []float32 // [rows]
	h2       []float32 // [rows, hidden]
	gateUp   []float32 // [rows, 2·intermediate]
	act      []float32 // [rows, intermediate]
}

// attentionBlock is the number of query rows that attention handles at once:
// keys after a block are skipped, so small blocks waste little of the causal
// triangle and large ones keep the products efficient.
const attentionBlock = 64

func grow(s []float32, n int) []float32 {
	if cap(s) < n {
		return make([]float32, n, n+n/4)
	}
	return s[:n]
}

// forward fills the activations for a batch of sequences.
func (t *Trainer) forward(seqs []Sequence) {
	a, acts := t.model.Arch, &t.acts
	d, q, kv, f := a.HiddenSize, a.Heads*a.HeadDim, a.KVHeads*a.HeadDim, a.IntermediateSize
	width := q + 2*kv
	acts.starts = acts.starts[:0]
	rows := 0
	for _, s := range seqs {
		acts.starts = append(acts.starts, rows)
		rows += len(s.Tokens)
	}
	acts.starts = append(acts.starts, rows)
	acts.rows = rows
	if acts.layers == nil {
		acts.layers = make([]layerActivations, a.Layers)
	}
	acts.final = grow(acts.final, rows*d)
	acts.normed = grow(acts.normed, rows*d)
	acts.scale = grow(acts.scale, rows)

	pool, p := t.workers.pool, t.model.params
	for l := range acts.layers {
		la := &acts.layers[l]
		la.x = grow(la.x, rows*d)
		la.attnNorm = grow(la.attnNorm, rows)
		la.h1 = grow(la.h1, rows*d)
		la.qkv = grow(la.qkv, rows*width)
		if a.headNorms() {
			la.rawQK = grow(la.rawQK, rows*(q+kv))
			la.headNorm = grow(la.headNorm, rows*(a.Heads+a.KVHeads))
		}
		la.attn = grow(la.attn, rows*q)
		la.lse = grow(la.lse, a.Heads*rows)
		la.mid = grow(la.mid, rows*d)
		la.mlpNorm = grow(la.mlpNorm, rows)
		la.h2 = grow(la.h2, rows*d)
		la.gateUp = grow(la.gateUp, rows*2*f)
		la.act = grow(la.act, rows*f)
	}
	x := acts.layers[0].x
	for i, s := range seqs {
		for j, id := range s.Tokens {
			copy(x[(acts.starts[i]+j)*d:][:d], p.embed[int(id)*d:][:d])
		}
	}
	position := t.positions()
	for l := range acts.layers {
		la, w := &acts.layers[l], p.layers[l]
		next := acts.final
		if l+1 < len(acts.layers) {
			next = acts.layers[l+1].x
		}
		t.workers.rows(rows, func(_, from, to int) {
			for r := from; r < to; r++ {
				la.attnNorm[r] = rmsNorm(la.h1[r*d:][:d], la.x[r*d:][:d], w.attnNorm, a.NormEpsilon)
			}
		})
		pool.MatMulTransB(la.qkv, width, la.h1, d, w.qkv, d, rows, width, d, false)
		t.addBias(la.qkv, w.qkvBias)
		t.normaliseHeads(la, w)
		t.workers.rows(rows, func(_, from, to int) {
			for r := from; r < to; r++ {
				t.rope.rotate(la.qkv[r*width:][:q+kv], position[r])
			}
		})
		t.attention(la)
		copy(la.mid, la.x)
		pool.MatMulTransB(la.mid, d, la.attn, q, w.out, q, rows, d, q, true)
		t.addBias(la.mid, w.outBias)
		t.workers.rows(rows, func(_, from, to int) {
			for r := from; r < to; r++ {
				la.mlpNorm[r] = rmsNorm(la.h2[r*d:][:d], la.mid[r*d:][:d], w.mlpNorm, a.NormEpsilon)
			}
		})
		pool.MatMulTransB(la.gateUp, 2*f, la.h2, d, w.gateUp, d, rows, 2*f, d, false)
		t.addBias(la.gateUp, w.gateUpBias)
		t.workers.rows(rows, func(_, from, to int) {
			for r := from; r < to; r++ {
				gu := la.gateUp[r*2*f:][:2*f]
				kernel.SiluMul(la.act[r*f:][:f], gu[:f], gu[f:])
			}
		})
		copy(next, la.mid)
		pool.MatMulTransB(next, d, la.act, f, w.down, f, rows, d, f, true)
		t.addBias(next, w.downBias)
	}
	t.workers.rows(rows, func(_, from, to int) {
		for r := from; r < to; r++ {
			acts.scale[r] = rmsNorm(acts.normed[r*d:][:d], acts.final[r*d:][:d], p.norm, a.NormEpsilon)
		}
	})
}

// addBias adds a bias, which may be nil, to every row of y.
func (t *Trainer) addBias(y, bias []float32) {
	if bias == nil {
		return
	}
	n := len(bias)
	t.workers.rows(t.acts.rows, func(_, from, to int) {
		for r := from; r < to; r++ {
			kernel.Add(y[r*n:][:n], bias)
		}
	})
}

// normaliseHeads normalises every query and key head by itself (Qwen3, arXiv
// 2505.09388), where the model does, and keeps what the backward pass needs.
func (t *Trainer) normaliseHeads(la *layerActivations, w layerParams) {
	if w.queryNorm == nil {
		return
	}
	a := t.model.Arch
	dim, heads := a.HeadDim, a.Heads+a.KVHeads
	n, width := heads*dim, (heads+a.KVHeads)*dim
	t.workers.rows(t.acts.rows, func(_, from, to int) {
		for r := from; r < to; r++ {
			raw, qk := la.rawQK[r*n:][:n], la.qkv[r*width:][:n]
			copy(raw, qk)
			for h := range heads {
				gain := w.queryNorm
				if h >= a.Heads {
					gain = w.keyNorm
				}
				la.headNorm[r*heads+h] = rmsNorm(qk[h*dim:][:dim], raw[h*dim:][:dim], gain, a.NormEpsilon)
			}
		}
	})
}

// positions gives the position in its sequence of every row.
func (t *Trainer) positions() []int {
	list := make([]int, t.acts.rows)
	for i := 0; i+1 < len(t.acts.starts); i++ {
		for r := t.acts.starts[i]; r < t.acts.starts[i+1]; r++ {
			list[r] = r - t.acts.starts[i]
		}
	}
	return list
}

// attention computes causal softmax(QKᵀ/√dim)V for every sequence and head,
// and the log-sum-exp of each row of scores so that the backward pass can make
// the probabilities again (FlashAttention, Dao et al. 2022, arXiv 2205.14135).
func (t *Trainer) attention(la *layerActivations) {
	a, acts := t.model.Arch, &t.acts
	dim, q, kv := a.HeadDim, a.Heads*a.HeadDim, a.KVHeads*a.HeadDim
	width := q + 2*kv
	share := a.Heads / a.KVHeads
	t.scratch(&acts.probs)
	t.workers.each((len(acts.starts)-1)*a.Heads, func(own *kernel.Pool, thread, i int) {
		seq, head := i/a.Heads, i%a.Heads
		start, end := acts.starts[seq], acts.starts[seq+1]
		keys := la.qkv[start*width+q+head/share*dim:]
		values := la.qkv[start*width+q+kv+head/share*dim:]
		for from := start; from < end; from += attentionBlock {
			to := min(end, from+attentionBlock)
			n := to - start // keys up to the last query of the block
			acts.probs[thread] = grow(acts.probs[thread], attentionBlock*n)
			probs := acts.probs[thread]
			own.MatMulTransB(probs, n, la.qkv[from*width+head*dim:], width, keys, width, to-from, n, dim, false)
			for r := from; r < to; r++ {
				row := probs[(r-from)*n:][:n]
				la.lse[head*acts.rows+r] = causalSoftmax(row, r-start+1, dim)
			}
			own.MatMul(la.attn[from*q+head*dim:], q, probs, n, values, width, to-from, dim, n, false)
		}
	})
}

// scratch makes one buffer per thread.
func (t *Trainer) scratch(buffers *[][]float32) {
	if *buffers == nil {
		*buffers = make([][]float32, len(t.workers.inline))
	}
}

// causalSoftmax turns the first n raw scores of row into probabilities, zeroes
// the rest, and returns their log-sum-exp.
func causalSoftmax(row []float32, n, dim int) float32 {
	kernel.Scale(float32(1/math.Sqrt(float64(dim))), row[:n])
	most := kernel.Max(row[:n])
	sum := kernel.ExpShiftSum(row[:n], row[:n], most)
	kernel.Scale(1/sum, row[:n])
	clear(row[n:])
	return most + float32(math.Log(float64(sum)))
}
