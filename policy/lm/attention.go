package lm

import (
	"math"

	"github.com/forager-rl/forager/policy/lm/kernel"
)

// attentionRows is the number of wanted rows that attention handles at once,
// each with all query heads that share a key-value head: small blocks waste
// little of the causal triangle, large ones keep the products efficient.
func (t *Trainer) attentionRows() int {
	share := t.model.Arch.Heads / t.model.Arch.KVHeads
	return max(16, 64/share)
}

// attentionBlock is some query rows of one sequence and key-value head.
type attentionBlock struct {
	first, last  int       // of the wanted rows
	kvHead       int       // all query heads of this one
	keys, values []float32 // [count, dim], a row every 2·kv floats, from the sequence's start
	count        int       // keys up to the last query of the block
	size         int       // queries: rows times heads
	key          int       // where keys start in the layer's kv
}

// eachBlock runs f for every block of every sequence. Blocks of one sequence
// and key-value head run in order on one thread, so that no two threads write
// the same gradient.
func (t *Trainer) eachBlock(la *layerActivations, set *rowSet, f func(own *kernel.Pool, s *threadActivations, b attentionBlock)) {
	a, p := t.model.Arch, &t.packing
	kv := a.KVHeads * a.HeadDim
	height := t.attentionRows()
	t.workers.each(p.sequences()*a.KVHeads, func(own *kernel.Pool, thread, i int) {
		seq, kvHead := i/a.KVHeads, i%a.KVHeads
		start := p.all.starts[seq]
		key := start*2*kv + kvHead*a.HeadDim
		for first := set.starts[seq]; first < set.starts[seq+1]; first += height {
			last := min(first+height, set.starts[seq+1])
			f(own, &t.acts.thread[thread], attentionBlock{
				first: first, last: last, kvHead: kvHead, key: key, keys: la.kv[key:], values: la.kv[key+kv:],
				count: set.rows[last-1] - start + 1, size: (last - first) * (a.Heads / a.KVHeads),
			})
		}
	})
}

// stack copies the heads of a block out of x [n, q] to rows of one matrix.
func (b attentionBlock) stack(dst, x []float32, a Architecture) {
	share, q := a.Heads/a.KVHeads, a.Heads*a.HeadDim
	n := share * a.HeadDim // heads of one row are neighbours
	for r := b.first; r < b.last; r++ {
		copy(dst[(r-b.first)*n:][:n], x[r*q+b.kvHead*n:])
	}
}

// place gives the wanted row, the head and the number of visible keys of query
// i of the block.
func (t *Trainer) place(b attentionBlock, set *rowSet, i int) (row, head, seen int) {
	share := t.model.Arch.Heads / t.model.Arch.KVHeads
	row = b.first + i/share
	return row, b.kvHead*share + i%share, t.packing.position[set.rows[row]] + 1
}

// attend computes causal softmax(QKᵀ/√dim)V for the wanted rows of every
// sequence and head, and the log-sum-exp of each row of scores, so that the
// backward pass can make the probabilities again (FlashAttention, Dao et al.
// 2022, arXiv 2205.14135). Queries come divided by √dim.
func (t *Trainer) attend(la *layerActivations, set *rowSet) {
	a := t.model.Arch
	dim, q, width := a.HeadDim, a.Heads*a.HeadDim, 2*a.KVHeads*a.HeadDim
	t.eachBlock(la, set, func(own *kernel.Pool, s *threadActivations, b attentionBlock) {
		n := b.count
		b.stack(s.queries, la.q, a)
		own.MatMulTransB(s.probs, n, s.queries, dim, b.keys, width, b.size, n, dim, false)
		for i := range b.size {
			row, head, seen := t.place(b, set, i)
			scores := s.probs[i*n:][:n]
			most := kernel.Max(scores[:seen])
			s.sums[i] = kernel.ExpShiftSum(scores[:seen], scores[:seen], most)
			clear(scores[seen:])
			la.logZ[row*a.Heads+head] = most + float32(math.Log(float64(s.sums[i])))
		}
		own.MatMul(s.out, dim, s.probs, n, b.values, width, b.size, dim, n, false)
		for i := range b.size {
			row, head, _ := t.place(b, set, i)
			out := la.attn[row*q+head*dim:][:dim]
			copy(out, s.out[i*dim:])
			kernel.Scale(1/s.sums[i], out)
		}
	})
}

// attendBackward turns acts.dAttn into the gradients of queries, which replace
// la.q, and of keys and values, acts.dKV. With P the probabilities,
//
//	dV = Pᵀ·dO    dP = dO·Vᵀ    dS = P∘(dP − Σ dO∘O)    dQ = dS·K    dK = dSᵀ·Q
func (t *Trainer) attendBackward(la *layerActivations, set *rowSet) {
	a, acts := t.model.Arch, &t.acts
	dim, q, width := a.HeadDim, a.Heads*a.HeadDim, 2*a.KVHeads*a.HeadDim
	scale := inverseRoot(dim)
	clear(acts.dKV)
	t.eachBlock(la, set, func(own *kernel.Pool, s *threadActivations, b attentionBlock) {
		n := b.count
		dKeys, dValues := acts.dKV[b.key:], acts.dKV[b.key+width/2:]
		b.stack(s.queries, la.q, a)
		b.stack(s.dOut, acts.dAttn, a)
		own.MatMulTransB(s.probs, n, s.queries, dim, b.keys, width, b.size, n, dim, false)
		own.MatMulTransB(s.dProbs, n, s.dOut, dim, b.values, width, b.size, n, dim, false)
		for i := range b.size {
			row, head, seen := t.place(b, set, i)
			probs, dProbs := s.probs[i*n:][:n], s.dProbs[i*n:][:n]
			kernel.ExpShiftSum(probs[:seen], probs[:seen], la.logZ[row*a.Heads+head])
			clear(probs[seen:])
			dot := kernel.Dot(s.dOut[i*dim:][:dim], la.attn[row*q+head*dim:][:dim])
			kernel.Mul(dProbs, dProbs, probs, 1)
			kernel.Axpy(-dot, probs, dProbs)
		}
		own.MatMulTransA(dValues, width, s.probs, n, s.dOut, dim, n, dim, b.size, true)
		own.MatMul(s.out, dim, s.dProbs, n, b.keys, width, b.size, dim, n, false)
		own.MatMulTransA(dKeys, width, s.dProbs, n, s.queries, dim, n, dim, b.size, true)
		for i := range b.size {
			row, head, _ := t.place(b, set, i)
			dQuery := la.q[row*q+head*dim:][:dim]
			copy(dQuery, s.out[i*dim:])
			kernel.Scale(scale, dQuery)
		}
	})
}

// inverseRoot is 1/√n.
func inverseRoot(n int) float32 { return float32(1 / math.Sqrt(float64(n))) }
