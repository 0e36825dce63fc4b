package lm

import (
	"math"

	"github.com/forager-rl/forager/policy/lm/kernel"
)

// forwardPass runs batches through the model and extends the KV caches of their
// sessions. Buffers grow to the largest batch and stay. It has one user at a
// time.
type forwardPass struct {
	arch    Architecture
	rope    rope
	cache   *cache
	weights packedWeights
	workers *workers

	x, h, qkv, attn, gateUp, act, logits []float32
	tiles                                []run // the runs, cut for attention
	threads                              []threadScratch

	// The work under way, for the stages.
	batch *batch
	rows  int // of x
	l     int
	layer *packedLayer

	// Methods, bound once: binding allocates.
	embed, beforeAttention, position, attention, beforeMLP, gate, beforeHead, draw stage
}

// stage is part of the work on all rows: on piece i, by one thread.
type stage func(thread, i int)

// threadScratch is one thread's memory.
type threadScratch struct {
	query, scores, out, sums []float32
	sampler                  sampler
}

func newForwardPass(a Architecture, limit int, c *cache, format kernel.Format) *forwardPass {
	a.ContextLength = limit // for the size of the table of rotations
	p := &forwardPass{arch: a, rope: newRope(a), cache: c, weights: packedWeights{format: format}}
	p.embed, p.beforeAttention, p.position, p.attention = p.embedRows, p.normAttention, p.positionRows, p.attendTile
	p.beforeMLP, p.gate, p.beforeHead, p.draw = p.normMLP, p.gateRows, p.normHead, p.drawRow
	return p
}

// start gives the pass its threads.
func (p *forwardPass) start(w *workers) {
	p.workers, p.threads = w, make([]threadScratch, len(w.inline))
}

func (p *forwardPass) load(m *Model) { p.weights.load(m, p.workers.pool) }

// run processes the rows of a batch and draws the tokens that it asks for.
func (p *forwardPass) run(b *batch) {
	a, n, pool := p.arch, len(b.rows), p.workers.pool
	d, q, f := a.HiddenSize, a.Heads*a.HeadDim, a.IntermediateSize
	width := q + 2*a.KVHeads*a.HeadDim
	p.x, p.h = grow(p.x, n*d), grow(p.h, n*d)
	p.qkv, p.attn = grow(p.qkv, n*width), grow(p.attn, n*q)
	p.gateUp, p.act = grow(p.gateUp, n*2*f), grow(p.act, n*f)
	p.batch, p.rows = b, n
	p.cutTiles(b.runs)
	p.overRows(d, p.embed)
	for l := range p.weights.layers {
		p.l, p.layer = l, &p.weights.layers[l]
		p.overRows(d, p.beforeAttention)
		pool.MatMulPacked(p.qkv, width, p.h, d, p.layer.qkv, p.rows, false)
		p.overRows(width, p.position)
		if l == len(p.weights.layers)-1 {
			p.keepSampled()
		}
		p.attend()
		pool.MatMulPacked(p.x, d, p.attn, q, p.layer.out, p.rows, true)
		p.overRows(d, p.beforeMLP)
		pool.MatMulPacked(p.gateUp, 2*f, p.h, d, p.layer.gateUp, p.rows, false)
		p.overRows(2*f, p.gate)
		pool.MatMulPacked(p.x, d, p.act, f, p.layer.down, p.rows, true)
	}
	p.overRows(d, p.beforeHead)
	p.logits = grow(p.logits, p.rows*a.VocabSize)
	pool.MatMulPacked(p.logits, a.VocabSize, p.h, d, p.weights.head, p.rows, false)
	p.spread(p.rows, p.rows*a.VocabSize, p.draw)
}

// keepSampled drops all rows but those whose successors are sampled: the last
// layer's keys and values are all that is needed of the others.
func (p *forwardPass) keepSampled() {
	d, width := p.arch.HiddenSize, len(p.qkv)/max(p.rows, 1)
	p.rows = len(p.batch.last)
	for i := range p.batch.last {
		r := &p.batch.last[i]
		copy(p.x[i*d:][:d], p.x[r.row*d:][:d])
		copy(p.qkv[i*width:][:width], p.qkv[r.row*width:][:width])
		r.row = i
	}
	p.cutTiles(p.batch.last)
}

// spread runs a stage for n pieces over the threads, or alone if the work, in
// floats, is too little to wake anybody.
func (p *forwardPass) spread(n, work int, f stage) {
	const least = 1 << 15
	if work >= least {
		p.workers.pool.Do(n, f)
		return
	}
	for i := range n {
		f(0, i)
	}
}

// rowsPerPiece is the number of rows that a stage handles at once.
const rowsPerPiece = 8

// overRows runs a stage over the rows, in pieces; width is the floats of a row.
func (p *forwardPass) overRows(width int, f stage) {
	p.spread((p.rows+rowsPerPiece-1)/rowsPerPiece, p.rows*width, f)
}

// piece gives the first and the last but one row of a piece.
func (p *forwardPass) piece(i int) (from, to int) {
	return i * rowsPerPiece, min((i+1)*rowsPerPiece, p.rows)
}

func (p *forwardPass) embedRows(_, i int) {
	d := p.arch.HiddenSize
	for r, to := p.piece(i); r < to; r++ {
		copy(p.x[r*d:][:d], p.weights.embed[int(p.batch.rows[r].token)*d:][:d])
	}
}

// normAttention normalises the rows for attention. The bias of the projection
// that will be added to the residual stream goes first.
func (p *forwardPass) normAttention(_, i int) {
	p.norm(i, p.layer.vectors.attnNorm, p.layer.vectors.outBias)
}

// normMLP does the same for the feed-forward network.
func (p *forwardPass) normMLP(_, i int) {
	p.norm(i, p.layer.vectors.mlpNorm, p.layer.vectors.downBias)
}

func (p *forwardPass) normHead(_, i int) { p.norm(i, p.weights.norm, nil) }

func (p *forwardPass) norm(i int, gain, bias []float32) {
	d := p.arch.HiddenSize
	for r, to := p.piece(i); r < to; r++ {
		x := p.x[r*d:][:d]
		rmsNorm(p.h[r*d:][:d], x, gain, p.arch.NormEpsilon)
		addBias(x, bias)
	}
}

// positionRows finishes queries, keys and values: biases, norms of heads,
// rotation by position; queries are scaled by 1/√dim, keys and values stored.
func (p *forwardPass) positionRows(_, i int) {
	a, v := p.arch, p.layer.vectors
	q, kv := a.Heads*a.HeadDim, a.KVHeads*a.HeadDim
	scale := float32(1 / math.Sqrt(float64(a.HeadDim)))
	for r, to := p.piece(i); r < to; r++ {
		row := p.batch.rows[r]
		qkv := p.qkv[r*(q+2*kv):][:q+2*kv]
		addBias(qkv, v.qkvBias)
		normEachHead(qkv[:q], v.queryNorm, a.NormEpsilon)
		normEachHead(qkv[q:q+kv], v.keyNorm, a.NormEpsilon)
		p.rope.rotate(qkv[:q+kv], row.position)
		kernel.Scale(scale, qkv[:q])
		p.cache.write(row.page, p.l, row.position, qkv[q:q+kv], qkv[q+kv:])
	}
}

// gateRows computes SwiGLU.
func (p *forwardPass) gateRows(_, i int) {
	f := p.arch.IntermediateSize
	for r, to := p.piece(i); r < to; r++ {
		gateUp := p.gateUp[r*2*f:][:2*f]
		addBias(gateUp, p.layer.vectors.gateUpBias)
		kernel.SiluMul(p.act[r*f:][:f], gateUp[:f], gateUp[f:])
	}
}

// drawRow samples the successor of a row.
func (p *forwardPass) drawRow(thread, i int) {
	c, vocab := p.batch.calls[i], p.arch.VocabSize
	position := len(c.req.Context) + len(c.out.Tokens)
	p.batch.drawn[i] = p.threads[thread].sampler.draw(p.logits[i*vocab:][:vocab], &c.req, position, c.excluded())
}

// addBias adds a bias, if the architecture has it.
func addBias(x, bias []float32) {
	if bias != nil {
		kernel.Add(x, bias)
	}
}

// normEachHead normalises the heads that lie one after another in x, if the
// architecture has a norm of them (Qwen3, arXiv 2505.09388).
func normEachHead(x, gain []float32, eps float32) {
	if gain == nil {
		return
	}
	for h := 0; h < len(x); h += len(gain) {
		head := x[h:][:len(gain)]
		rmsNorm(head, head, gain, eps)
	}
}
