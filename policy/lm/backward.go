package lm

import "github.com/forager-rl/forager/policy/lm/kernel"

// backward adds the gradients of a packing, given those of acts.normed in
// acts.dh.
func (t *Trainer) backward() {
	a, acts, p := t.model.Arch, &t.acts, &t.packing
	d, n := a.HiddenSize, len(p.wanted.rows)
	if n == 0 {
		return
	}
	dx := acts.dFinal
	clear(dx)
	t.normBackward(dx, t.grads.norm, acts.dh, acts.final, t.model.params.norm, acts.scale, n)
	for l := a.Layers - 1; l >= 0; l-- {
		if t.cfg.Recompute && l < a.Layers-1 { // the last layer's are still there
			t.forwardLayer(l, nil)
		}
		dx = t.backwardLayer(l, dx)
	}
	if t.grads.embed == nil {
		return
	}
	for r, id := range p.tokens {
		kernel.Add(t.grads.embed[int(id)*d:][:d], dx[r*d:][:d])
	}
}

// backwardLayer turns the gradient dOut of a layer's output into that of its
// input, which may be the same memory.
func (t *Trainer) backwardLayer(l int, dOut []float32) (dx []float32) {
	a, acts, p := t.model.Arch, &t.acts, &t.packing
	la, w, set := &acts.layers[l], &t.layers[l], t.rowsOf(l)
	d, q, kv, f := a.HiddenSize, a.Heads*a.HeadDim, a.KVHeads*a.HeadDim, a.IntermediateSize
	rows, n := len(p.tokens), len(set.rows)

	// MLP: out = mid + down(silu(gate)·up), gate and up of the norm of mid.
	w.down.backwardInput(t, acts.dAct, dOut, n, false)
	t.workers.rows(n, func(from, to int) {
		for i := from; i < to; i++ {
			gate, up := la.gateUp[i*2*f:][:f], la.gateUp[i*2*f+f:][:f]
			kernel.SiluMul(acts.act[i*f:][:f], gate, up)
			kernel.SiluMulBackward(gate, up, acts.dAct[i*f:][:f], gate, up)
			kernel.Mul(acts.h[i*d:][:d], la.mid[i*d:][:d], w.mlpNorm, la.mlpNorm[i])
		}
	})
	w.down.backwardWeights(t, dOut, acts.act, n)
	w.gateUp.backward(t, acts.dh, la.gateUp, acts.h, n, false)
	t.normBackward(dOut, w.dMLPNorm, acts.dh, la.mid, w.mlpNorm, la.mlpNorm, n)

	// Attention: mid = x + out(attention(q, k, v)), all three of the norm of x.
	w.out.backward(t, acts.dAttn, dOut, la.attn, n, false)
	t.attendBackward(la, set)
	t.sumGains(w.dQueryNorm, n, func(part, scratch []float32, from, to int) {
		for i := from; i < to; i++ {
			dQueries := la.q[i*q:][:q]
			t.rope.back(dQueries, p.position[set.rows[i]])
			if w.queryNorm != nil {
				normaliseHeadsBackward(dQueries, part, la.rawQ[i*q:][:q], la.qNorm[i*a.Heads:][:a.Heads], w.queryNorm, scratch)
			}
		}
	})
	t.sumGains(w.dKeyNorm, rows, func(part, scratch []float32, from, to int) {
		for r := from; r < to; r++ {
			dKeys := acts.dKV[r*2*kv:][:kv]
			t.rope.back(dKeys, p.position[r])
			if w.keyNorm != nil {
				normaliseHeadsBackward(dKeys, part, la.rawK[r*kv:][:kv], la.kNorm[r*a.KVHeads:][:a.KVHeads], w.keyNorm, scratch)
			}
			kernel.Mul(acts.h[r*d:][:d], la.x[r*d:][:d], w.attnNorm, la.attnNorm[r])
		}
	})
	w.keyValue.backward(t, acts.dh, acts.dKV, acts.h, rows, false)
	if t.whole(set) {
		w.query.backward(t, acts.dh, la.q, acts.h, n, true)
		dx = dOut
	} else {
		w.query.backward(t, acts.dPicked, la.q, t.pick(acts.h, set), n, false)
		dx = acts.dx
		clear(dx)
		for i, r := range set.rows {
			kernel.Add(acts.dh[r*d:][:d], acts.dPicked[i*d:][:d])
			copy(dx[r*d:][:d], dOut[i*d:])
		}
	}
	if !w.query.frozenBelow {
		t.normBackward(dx, w.dAttnNorm, acts.dh, la.x, w.attnNorm, la.attnNorm, rows)
	}
	return dx
}
