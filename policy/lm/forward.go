package lm

import "github.com/forager-rl/forager/policy/lm/kernel"

// layer is what the trainer needs of one layer: its products, and the gains of
// its norms with their gradients, which are nil when frozen.
type layer struct {
	query, keyValue, out, gateUp, down linear

	attnNorm, mlpNorm, queryNorm, keyNorm     []float32
	dAttnNorm, dMLPNorm, dQueryNorm, dKeyNorm []float32
}

func newLayer(a Architecture, w, g layerParams) layer {
	d, q, f := a.HiddenSize, a.Heads*a.HeadDim, a.IntermediateSize
	width := q + 2*a.KVHeads*a.HeadDim
	product := func(in, from, to int, w, bias, dW, dBias []float32) linear {
		l := linear{in: in, out: to - from, weight: w[from*in : to*in]}
		if bias != nil {
			l.bias = bias[from:to]
		}
		if dW != nil {
			l.dWeight = dW[from*in : to*in]
		}
		if dBias != nil {
			l.dBias = dBias[from:to]
		}
		return l
	}
	return layer{
		query:     product(d, 0, q, w.qkv, w.qkvBias, g.qkv, g.qkvBias),
		keyValue:  product(d, q, width, w.qkv, w.qkvBias, g.qkv, g.qkvBias),
		out:       product(q, 0, d, w.out, w.outBias, g.out, g.outBias),
		gateUp:    product(d, 0, 2*f, w.gateUp, w.gateUpBias, g.gateUp, g.gateUpBias),
		down:      product(f, 0, d, w.down, w.downBias, g.down, g.downBias),
		attnNorm:  w.attnNorm,
		mlpNorm:   w.mlpNorm,
		queryNorm: w.queryNorm,
		keyNorm:   w.keyNorm,

		dAttnNorm:  g.attnNorm,
		dMLPNorm:   g.mlpNorm,
		dQueryNorm: g.queryNorm,
		dKeyNorm:   g.keyNorm,
	}
}

// products are the matrices of a layer, in the order of adapted.
func (l *layer) products() [len(adapted)]*linear {
	return [...]*linear{&l.query, &l.keyValue, &l.out, &l.gateUp, &l.down}
}

// rowsOf is the rows that layer l computes beside keys and values.
func (t *Trainer) rowsOf(l int) *rowSet {
	if l == t.model.Arch.Layers-1 {
		return &t.packing.wanted
	}
	return &t.packing.all
}

// forward packs a micro-batch and fills the activations. With every set all
// rows are wanted, otherwise those that predict a masked token. The result
// does not depend on gradients, which says what is kept.
func (t *Trainer) forward(seqs []Sequence, every, gradients bool) {
	a, acts, p := t.model.Arch, &t.acts, &t.packing
	d := a.HiddenSize
	p.fill(seqs, every)
	t.prepare(gradients)
	x := acts.layers[0].x
	for r, id := range p.tokens {
		copy(x[r*d:][:d], t.model.params.embed[int(id)*d:][:d])
	}
	for l := range acts.layers {
		next := acts.final
		if l+1 < len(acts.layers) {
			next = acts.layers[l+1].x
		}
		t.forwardLayer(l, next)
	}
	t.workers.rows(len(p.wanted.rows), func(from, to int) {
		for r := from; r < to; r++ {
			acts.scale[r] = rmsNorm(acts.normed[r*d:][:d], acts.final[r*d:][:d], t.model.params.norm, a.NormEpsilon)
		}
	})
}

// forwardLayer computes a layer from its x. A nil next is recomputation for the
// backward pass, which does not need the output.
func (t *Trainer) forwardLayer(l int, next []float32) {
	a, acts, p := t.model.Arch, &t.acts, &t.packing
	la, w, set := &acts.layers[l], &t.layers[l], t.rowsOf(l)
	d, q, kv := a.HiddenSize, a.Heads*a.HeadDim, a.KVHeads*a.HeadDim
	rows, n := len(p.tokens), len(set.rows)
	h := acts.h

	t.workers.rows(rows, func(from, to int) {
		for r := from; r < to; r++ {
			la.attnNorm[r] = rmsNorm(h[r*d:][:d], la.x[r*d:][:d], w.attnNorm, a.NormEpsilon)
		}
	})
	w.keyValue.forward(t, la.kv, h, rows, false)
	t.workers.rows(rows, func(from, to int) {
		for r := from; r < to; r++ {
			keys := la.kv[r*2*kv:][:kv]
			if w.keyNorm != nil {
				normaliseHeads(keys, la.rawK[r*kv:][:kv], la.kNorm[r*a.KVHeads:][:a.KVHeads], w.keyNorm, a.NormEpsilon)
			}
			t.rope.rotate(keys, p.position[r])
		}
	})
	w.query.forward(t, la.q, t.pick(h, set), n, false)
	t.workers.rows(n, func(from, to int) {
		for i := from; i < to; i++ {
			queries := la.q[i*q:][:q]
			if w.queryNorm != nil {
				normaliseHeads(queries, la.rawQ[i*q:][:q], la.qNorm[i*a.Heads:][:a.Heads], w.queryNorm, a.NormEpsilon)
			}
			t.rope.rotate(queries, p.position[set.rows[i]])
			kernel.Scale(inverseRoot(a.HeadDim), queries)
			copy(la.mid[i*d:][:d], la.x[set.rows[i]*d:][:d])
		}
	})
	t.attend(la, set)
	w.out.forward(t, la.mid, la.attn, n, true)
	t.workers.rows(n, func(from, to int) {
		for i := from; i < to; i++ {
			mid := la.mid[i*d:][:d]
			la.mlpNorm[i] = rmsNorm(h[i*d:][:d], mid, w.mlpNorm, a.NormEpsilon)
			if next != nil {
				copy(next[i*d:], mid)
			}
		}
	})
	w.gateUp.forward(t, la.gateUp, h, n, false)
	if next == nil {
		return
	}
	f := a.IntermediateSize
	t.workers.rows(n, func(from, to int) {
		for i := from; i < to; i++ {
			gateUp := la.gateUp[i*2*f:][:2*f]
			kernel.SiluMul(acts.act[i*f:][:f], gateUp[:f], gateUp[f:])
		}
	})
	w.down.forward(t, next, acts.act, n, true)
}

// whole reports whether a set is all rows of the packing.
func (t *Trainer) whole(set *rowSet) bool { return len(set.rows) == len(t.packing.tokens) }

// pick gives the rows of h that are in set: h itself when all are.
func (t *Trainer) pick(h []float32, set *rowSet) []float32 {
	if t.whole(set) {
		return h
	}
	d := t.model.Arch.HiddenSize
	for i, r := range set.rows {
		copy(t.acts.picked[i*d:][:d], h[r*d:])
	}
	return t.acts.picked
}
