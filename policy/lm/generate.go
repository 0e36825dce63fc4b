package lm

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	"github.com/forager-rl/forager/policy"
	"github.com/forager-rl/forager/policy/lm/kernel"
)

// forward runs the rows of a batch through the model, extends the KV caches of
// their sessions, and returns the logits [len(b.sample), vocab] of the rows
// that are to be sampled. The result is valid until the next call.
func (p *packedModel) forward(w *workers, rope rope, b *batch) []float32 {
	a := p.arch
	n := len(b.rows)
	d, q, kv, f := a.HiddenSize, a.Heads*a.HeadDim, a.KVHeads*a.HeadDim, a.IntermediateSize
	width := q + 2*kv
	p.x, p.h = grow(p.x, n*d), grow(p.h, n*d)
	p.qkv, p.attn = grow(p.qkv, n*width), grow(p.attn, n*q)
	p.gateUp, p.act = grow(p.gateUp, n*2*f), grow(p.act, n*f)
	if p.scores == nil {
		p.scores = make([][]float32, len(w.inline))
	}
	for i, r := range b.rows {
		copy(p.x[i*d:][:d], p.model.params.embed[int(r.token)*d:][:d])
		r.session.reserve(r.position + 1)
	}
	for l, layer := range p.layers {
		params := p.model.params.layers[l]
		for i := range b.rows {
			rmsNorm(p.h[i*d:][:d], p.x[i*d:][:d], params.attnNorm, a.NormEpsilon)
		}
		w.pool.MatMulPacked(p.qkv, width, p.h, d, layer.qkv, n, false)
		for i, r := range b.rows {
			qkv := p.qkv[i*width:][:width]
			addBias(qkv, params.qkvBias)
			normHeads(qkv[:q], params.queryNorm, a.NormEpsilon)
			normHeads(qkv[q:q+kv], params.keyNorm, a.NormEpsilon)
			rope.rotate(qkv[:q+kv], r.position)
			keys, values := r.session.keys[l], r.session.values[l]
			at := r.position
			for h := range kv {
				keys[at] = qkv[q+h]
				values[at] = qkv[q+kv+h]
				at += r.session.room
			}
		}
		w.each(n, func(_ *kernel.Pool, thread, i int) { p.attend(l, i, b.rows[i], thread) })
		w.pool.MatMulPacked(p.x, d, p.attn, q, layer.out, n, true)
		for i := range b.rows {
			addBias(p.x[i*d:][:d], params.outBias)
			rmsNorm(p.h[i*d:][:d], p.x[i*d:][:d], params.mlpNorm, a.NormEpsilon)
		}
		w.pool.MatMulPacked(p.gateUp, 2*f, p.h, d, layer.gateUp, n, false)
		for i := range b.rows {
			gu := p.gateUp[i*2*f:][:2*f]
			addBias(gu, params.gateUpBias)
			kernel.SiluMul(p.act[i*f:][:f], gu[:f], gu[f:])
		}
		w.pool.MatMulPacked(p.x, d, p.act, f, layer.down, n, true)
		for i := range b.rows {
			addBias(p.x[i*d:][:d], params.downBias)
		}
	}
	for i, r := range b.sample {
		rmsNorm(p.h[i*d:][:d], p.x[r*d:][:d], p.model.params.norm, a.NormEpsilon)
	}
	p.logits = grow(p.logits, len(b.sample)*a.VocabSize)
	w.pool.MatMulPacked(p.logits, a.VocabSize, p.h, d, p.head, len(b.sample), false)
	return p.logits
}

// addBias adds a bias, if the architecture has it.
func addBias(x, bias []float32) {
	if bias != nil {
		kernel.Add(x, bias)
	}
}

// normHeads normalises the heads that lie one after another in x, if the
// architecture has a norm of them (Qwen3, arXiv 2505.09388).
func normHeads(x, gain []float32, eps float32) {
	if gain == nil {
		return
	}
	for h := 0; h < len(x); h += len(gain) {
		head := x[h:][:len(gain)]
		rmsNorm(head, head, gain, eps)
	}
}

// attend computes one row's attention over its session's cache.
func (p *packedModel) attend(l, i int, r row, thread int) {
	a, s := p.arch, r.session
	dim, q := a.HeadDim, a.Heads*a.HeadDim
	width := q + 2*a.KVHeads*dim
	n := r.position + 1
	p.scores[thread] = grow(p.scores[thread], a.ContextLength)
	scores := p.scores[thread][:n]
	scale := float32(1 / math.Sqrt(float64(dim)))
	for head := range a.Heads {
		first := head / (a.Heads / a.KVHeads) * dim
		query := p.qkv[i*width+head*dim:][:dim]
		clear(scores)
		for j, v := range query {
			kernel.Axpy(v*scale, s.keys[l][(first+j)*s.room:][:n], scores)
		}
		sum := kernel.ExpShiftSum(scores, scores, kernel.Max(scores))
		out := p.attn[i*q+head*dim:][:dim]
		for j := range out {
			out[j] = kernel.Dot(scores, s.values[l][(first+j)*s.room:][:n]) / sum
		}
	}
}

// sample draws a token from logits, which it overwrites, and returns its
// log-probability under the tempered distribution. The draw depends on the
// request's seed and the position alone.
func sample(logits []float32, req policy.Request, position int) (int32, float32) {
	temperature := req.Temperature
	if temperature > 0 && temperature != 1 {
		kernel.Scale(1/temperature, logits)
	}
	most := kernel.Max(logits)
	if temperature <= 0 {
		best := slices.Index(logits, most)
		sum := kernel.ExpShiftSum(logits, logits, most)
		return int32(max(best, 0)), -float32(math.Log(float64(sum)))
	}
	sum := kernel.ExpShiftSum(logits, logits, most) // now unnormalised probabilities
	u := uniform(req.Seed, position)
	id := 0
	if req.TopK > 0 && req.TopK < len(logits) || req.TopP > 0 && req.TopP < 1 {
		id = sampleNucleus(logits, float64(sum), req.TopK, req.TopP, u)
	} else {
		id = pick(logits, nil, float64(sum)*u)
	}
	return int32(id), float32(math.Log(float64(logits[id]) / float64(sum)))
}

// pick walks the weights, in the given order or their own, until their sum
// exceeds target and returns the index of the one it reached, which never has
// weight 0.
func pick(weights []float32, order []int, target float64) int {
	n := len(weights)
	if order != nil {
		n = len(order)
	}
	total, last := 0.0, 0
	for i := range n {
		id := i
		if order != nil {
			id = order[i]
		}
		p := weights[id]
		if p == 0 {
			continue
		}
		last = id
		if total += float64(p); total > target {
			break
		}
	}
	return last
}

// sampleNucleus draws among the k most probable tokens, and of these among the
// fewest whose probabilities reach topP (Holtzman et al. 2020, arXiv 1904.09751).
func sampleNucleus(weights []float32, sum float64, k int, topP float32, u float64) int {
	order := make([]int, len(weights))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(weights[b], weights[a]), cmp.Compare(a, b))
	})
	if k > 0 && k < len(order) {
		order = order[:k]
	}
	kept := 0.0
	for i, id := range order {
		kept += float64(weights[id])
		if topP > 0 && kept >= float64(topP)*sum {
			order = order[:i+1]
			break
		}
	}
	return pick(weights, order, kept*u)
}

// uniform is a draw from [0, 1) fixed by seed and position (SplitMix64, Steele
// et al. 2014).
func uniform(seed uint64, position int) float64 {
	z := seed + (uint64(position)+1)*0x9e3779b97f4a7c15
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	z ^= z >> 31
	return float64(z>>11) / (1 << 53)
}

// endsWithStop reports whether a stop string ends in the bytes that were added
// to text after position before.
func endsWithStop(text []byte, before int, stops []string) bool {
	for _, s := range stops {
		if s != "" && bytes.Contains(text[max(0, before-len(s)+1):], []byte(s)) {
			return true
		}
	}
	return false
}
