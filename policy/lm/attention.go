package lm

import (
	"math"

	"github.com/forager-rl/forager/policy/lm/kernel"
)

// attentionStep is the number of rows that see the same keys in the products of
// attention: what they compute beyond the causal triangle is masked out.
const attentionStep = 32

// attentionRows is the number of rows that attention handles at once, each with
// all query heads that share a key-value head: many for efficient products, few
// for scores that stay in a core's cache.
func (t *Trainer) attentionRows() int {
	share := t.model.Arch.Heads / t.model.Arch.KVHeads
	return max(attentionStep, 128/share/attentionStep*attentionStep)
}

// attentionBlock is some rows of one sequence with the query heads of one
// key-value head. Row and head make one query, and queries are stacked.
type attentionBlock struct {
	first, last int // of the row set
	kvHead      int
	queries     int    // (last - first)·heads
	keys        int    // seen by the last row
	steps       []step // the products, which together cover the causal triangle
	s           *threadActivations
	own         *kernel.Pool
}

// step is a product of the queries from some on with some keys.
type step struct{ query, from, to int }

// eachHead runs f for every sequence and key-value head, with the sequence's
// rows.
func (t *Trainer) eachHead(f func(own *kernel.Pool, s *threadActivations, seq, kvHead, start, end int)) {
	heads, starts := t.model.Arch.KVHeads, t.packing.all.starts
	t.workers.each(t.packing.sequences()*heads, func(own *kernel.Pool, thread, i int) {
		seq := i / heads
		f(own, &t.acts.thread[thread], seq, i%heads, starts[seq], starts[seq+1])
	})
}

// eachBlock runs f for the blocks of a sequence and key-value head, in order.
func (t *Trainer) eachBlock(own *kernel.Pool, s *threadActivations, set *rowSet, seq, kvHead int, f func(b *attentionBlock)) {
	share, height := t.model.Arch.Heads/t.model.Arch.KVHeads, t.attentionRows()
	b := attentionBlock{kvHead: kvHead, s: s, own: own}
	for first := set.starts[seq]; first < set.starts[seq+1]; first += height {
		b.first, b.last = first, min(first+height, set.starts[seq+1])
		b.queries, b.keys, b.steps = (b.last-first)*share, 0, s.steps[:0]
		for r := first; r < b.last; r += attentionStep {
			seen := t.packing.position[set.rows[min(r+attentionStep, b.last)-1]] + 1
			b.steps = append(b.steps, step{query: (r - first) * share, from: b.keys, to: seen})
			b.keys = seen
		}
		s.steps = b.steps
		f(&b)
	}
}

// eachQuery runs f for the queries of a block with their row and head, and the
// keys that they see: before the causal mask, of which the products know, and
// after.
func (t *Trainer) eachQuery(b *attentionBlock, set *rowSet, f func(i, row, head, computed, seen int)) {
	share := t.model.Arch.Heads / t.model.Arch.KVHeads
	for i := range b.queries {
		row := b.first + i/share
		computed := b.steps[i/share/attentionStep].to
		f(i, row, b.kvHead*share+i%share, computed, t.packing.position[set.rows[row]]+1)
	}
}

// stack copies a block's queries out of x [n, heads·dim].
func (b *attentionBlock) stack(dst, x []float32, a Architecture) {
	q, n := a.Heads*a.HeadDim, a.Heads/a.KVHeads*a.HeadDim // a row's heads are neighbours
	for r := b.first; r < b.last; r++ {
		copy(dst[(r-b.first)*n:][:n], x[r*q+b.kvHead*n:])
	}
}

// scores computes X·Yᵀ, X stacked by query and Y by key.
func (b *attentionBlock) scores(dst, x, y []float32, dim int) {
	for _, s := range b.steps {
		b.own.MatMulTransB(dst[s.query*b.keys+s.from:], b.keys, x[s.query*dim:], dim, y[s.from*dim:], dim, b.queries-s.query, s.to-s.from, dim, false)
	}
}

// overKeys computes P·Y, P by query and key, Y by key.
func (b *attentionBlock) overKeys(dst, p, y []float32, dim int) {
	for i, s := range b.steps {
		b.own.MatMul(dst[s.query*dim:], dim, p[s.query*b.keys+s.from:], b.keys, y[s.from*dim:], dim, b.queries-s.query, dim, s.to-s.from, i > 0)
	}
}

// overQueries adds Pᵀ·X, P by query and key, X by query.
func (b *attentionBlock) overQueries(dst, p, x []float32, dim int) {
	for _, s := range b.steps {
		b.own.MatMulTransA(dst[s.from*dim:], dim, p[s.query*b.keys+s.from:], b.keys, x[s.query*dim:], dim, s.to-s.from, dim, b.queries-s.query, true)
	}
}

// attend computes causal softmax(QKᵀ/√dim)V for the rows of set, and the
// log-sum-exp of each row of scores, so that the backward pass can make the
// probabilities again (FlashAttention, Dao et al. 2022, arXiv 2205.14135).
// Queries come divided by √dim.
func (t *Trainer) attend(la *layerActivations, set *rowSet) {
	a := t.model.Arch
	dim, q := a.HeadDim, a.Heads*a.HeadDim
	t.eachHead(func(own *kernel.Pool, s *threadActivations, seq, kvHead, start, end int) {
		t.keysAndValues(s, la, kvHead, start, end)
		t.eachBlock(own, s, set, seq, kvHead, func(b *attentionBlock) {
			b.stack(s.queries, la.q, a)
			b.scores(s.probs, s.queries, s.keys, dim)
			t.eachQuery(b, set, func(i, row, head, computed, seen int) {
				scores := s.probs[i*b.keys:][:computed]
				most := kernel.Max(scores[:seen])
				s.sums[i] = kernel.ExpShiftSum(scores[:seen], scores[:seen], most)
				clear(scores[seen:])
				la.logZ[row*a.Heads+head] = most + float32(math.Log(float64(s.sums[i])))
			})
			b.overKeys(s.out, s.probs, s.values, dim)
			t.eachQuery(b, set, func(i, row, head, _, _ int) {
				out := la.attn[row*q+head*dim:][:dim]
				copy(out, s.out[i*dim:])
				kernel.Scale(1/s.sums[i], out)
			})
		})
	})
}

// attendBackward turns acts.dAttn into the gradients of queries, which replace
// la.q, and of keys and values, acts.dKV. With P the probabilities,
//
//	dV = Pᵀ·dO    dP = dO·Vᵀ    dS = P∘(dP − Σ P∘dP)    dQ = dS·K    dK = dSᵀ·Q
func (t *Trainer) attendBackward(la *layerActivations, set *rowSet) {
	a, acts := t.model.Arch, &t.acts
	dim, q, kv := a.HeadDim, a.Heads*a.HeadDim, a.KVHeads*a.HeadDim
	scale := inverseRoot(dim)
	t.eachHead(func(own *kernel.Pool, s *threadActivations, seq, kvHead, start, end int) {
		t.keysAndValues(s, la, kvHead, start, end)
		clear(s.dKeys[:(end-start)*dim])
		clear(s.dValues[:(end-start)*dim])
		t.eachBlock(own, s, set, seq, kvHead, func(b *attentionBlock) {
			b.stack(s.queries, la.q, a)
			b.stack(s.dOut, acts.dAttn, a)
			b.scores(s.probs, s.queries, s.keys, dim)
			b.scores(s.dProbs, s.dOut, s.values, dim)
			t.eachQuery(b, set, func(i, row, head, computed, seen int) {
				probs, dProbs := s.probs[i*b.keys:][:computed], s.dProbs[i*b.keys:][:computed]
				kernel.ExpShiftSum(probs[:seen], probs[:seen], la.logZ[row*a.Heads+head])
				clear(probs[seen:])
				dot := kernel.Dot(probs[:seen], dProbs[:seen])
				kernel.Mul(dProbs, dProbs, probs, 1)
				kernel.Axpy(-dot, probs, dProbs)
			})
			b.overQueries(s.dValues, s.probs, s.dOut, dim)
			b.overKeys(s.out, s.dProbs, s.keys, dim)
			b.overQueries(s.dKeys, s.dProbs, s.queries, dim)
			t.eachQuery(b, set, func(i, row, head, _, _ int) {
				dQuery := la.q[row*q+head*dim:][:dim]
				copy(dQuery, s.out[i*dim:])
				kernel.Scale(scale, dQuery)
			})
		})
		for r := start; r < end; r++ {
			dKV := acts.dKV[r*2*kv+kvHead*dim:]
			copy(dKV[:dim], s.dKeys[(r-start)*dim:])
			copy(dKV[kv:][:dim], s.dValues[(r-start)*dim:])
		}
	})
}

// keysAndValues copies those of one sequence and head to where their rows are
// neighbours.
func (t *Trainer) keysAndValues(s *threadActivations, la *layerActivations, kvHead, start, end int) {
	dim, kv := t.model.Arch.HeadDim, t.model.Arch.KVHeads*t.model.Arch.HeadDim
	for r := start; r < end; r++ {
		from := la.kv[r*2*kv+kvHead*dim:]
		copy(s.keys[(r-start)*dim:][:dim], from)
		copy(s.values[(r-start)*dim:][:dim], from[kv:])
	}
}

// inverseRoot is 1/√n.
func inverseRoot(n int) float32 { return float32(1 / math.Sqrt(float64(n))) }
