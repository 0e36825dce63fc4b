package lm

// activations are the buffers of a forward and backward pass, all cut from one
// block of memory that is kept from batch to batch. The last layer computes
// queries, output and MLP for the wanted rows alone, which the tables call n:
// nothing reads the others. In the other layers n is the number of all rows.
type activations struct {
	layers  []layerActivations
	final   []float32 // [wanted, hidden] residual stream after the last layer
	normed  []float32 // [wanted, hidden] its normalised form
	scale   []float32 // [wanted] factor of the final norm
	logp    []float32 // [wanted] log-probability of the target
	logZ    []float32 // [wanted] log-sum-exp of the tempered logits
	entropy []float32 // [wanted] entropy of the prediction, in nats
	dLogp   []float32 // [wanted] gradient of the loss for logp
	dH      []float32 // [wanted] gradient of the loss for the entropy

	// Scratch of the passes.
	h      []float32 // [rows, hidden] normalised input of a product
	picked []float32 // [wanted, hidden] h of the wanted rows
	act    []float32 // [rows, intermediate] silu(gate)·up
	low    []float32 // [rows, ranks] x·Aᵀ of an adapter
	logits []float32 // [chunk, vocab]
	thread []threadActivations

	// Scratch of the backward pass.
	dFinal  []float32 // [wanted, hidden]
	dx      []float32 // [rows, hidden] when not all rows are wanted
	dh      []float32 // [rows, hidden]
	dPicked []float32 // [wanted, hidden]
	dKV     []float32 // [rows, 2·kv]
	dAttn   []float32 // [rows, q]
	dAct    []float32 // [rows, intermediate]
	dLow    []float32 // [rows, ranks]
	gains   []float32 // [blocks, hidden or 2·dim] partial gradients of a norm's gain
}

// layerActivations are what a layer's forward pass leaves for its backward
// pass. What is cheap to make again from these (normalised rows, the MLP's
// activation, probabilities of attention) is not kept.
type layerActivations struct {
	x        []float32 // [rows, hidden] residual stream before the layer
	attnNorm []float32 // [rows] factor of the norm
	q        []float32 // [n, q] queries, rotated and divided by √dim; then their gradient
	kv       []float32 // [rows, 2·kv] rotated keys, values
	rawQ     []float32 // [n, q] before the norm of heads, where the model has it
	rawK     []float32 // [rows, kv]
	qNorm    []float32 // [n, heads] factors of the norm of heads
	kNorm    []float32 // [rows, kvHeads]
	attn     []float32 // [n, q] attention's output before its projection
	logZ     []float32 // [n, heads] log-sum-exp of the scores
	mid      []float32 // [n, hidden] residual stream after attention
	mlpNorm  []float32 // [n]
	gateUp   []float32 // [n, 2·intermediate]; then its gradient
}

// threadActivations are the scratch of one thread: a block of attention, and a
// row of the vocabulary.
type threadActivations struct {
	keys, values       []float32 // [longest, dim]
	dKeys, dValues     []float32 // [longest, dim]
	queries, dOut, out []float32 // [block, dim]
	probs, dProbs      []float32 // [block, longest]
	sums               []float32 // [block]
	steps              []step
	row                []float32 // [at least vocab, hidden and 2·dim]
}

// arena cuts buffers from one block of memory. A first round on an arena
// without memory counts what is needed.
type arena struct {
	memory     []float32
	used, need int
}

func (m *arena) take(n int) []float32 {
	const line = 16 // floats of a cache line
	from := m.used
	m.used += (n + line - 1) / line * line
	m.need = max(m.need, m.used)
	if m.memory == nil {
		return nil
	}
	return m.memory[from : from+n : from+n]
}

// prepare cuts the buffers for a packing. Memory grows when it must; the old
// block is given up first.
func (t *Trainer) prepare(gradients bool) {
	m := &arena{}
	t.cut(m, gradients)
	if m.need > len(t.memory) {
		t.memory = nil
		t.memory = make([]float32, m.need)
	}
	t.cut(&arena{memory: t.memory}, gradients)
}

func (t *Trainer) cut(m *arena, gradients bool) {
	a, acts, p := t.model.Arch, &t.acts, &t.packing
	d, q, kv, f := a.HiddenSize, a.Heads*a.HeadDim, a.KVHeads*a.HeadDim, a.IntermediateSize
	rows, wanted := len(p.tokens), len(p.wanted.rows)
	layer := func(n int) layerActivations {
		la := layerActivations{
			attnNorm: m.take(rows), q: m.take(n * q), kv: m.take(rows * 2 * kv),
			attn: m.take(n * q), logZ: m.take(n * a.Heads), mid: m.take(n * d), mlpNorm: m.take(n), gateUp: m.take(n * 2 * f),
		}
		if a.headNorms() {
			la.rawQ, la.rawK = m.take(n*q), m.take(rows*kv)
			la.qNorm, la.kNorm = m.take(n*a.Heads), m.take(rows*a.KVHeads)
		}
		return la
	}
	if acts.layers == nil {
		acts.layers = make([]layerActivations, a.Layers)
		acts.thread = make([]threadActivations, len(t.workers.inline))
	}
	var shared layerActivations
	var streams [2][]float32
	if !gradients || t.cfg.Recompute {
		shared = layer(rows)
	}
	if !gradients {
		streams = [2][]float32{m.take(rows * d), m.take(rows * d)}
	}
	for l := range acts.layers {
		la := &acts.layers[l]
		switch {
		case !gradients:
			*la = shared
			la.x = streams[l%2]
		case t.cfg.Recompute:
			*la = shared
			la.x = m.take(rows * d)
		default:
			*la = layer(len(t.rowsOf(l).rows))
			la.x = m.take(rows * d)
		}
	}
	for _, vector := range []*[]float32{&acts.scale, &acts.logp, &acts.logZ, &acts.entropy, &acts.dLogp, &acts.dH} {
		*vector = m.take(wanted)
	}
	acts.final, acts.normed = m.take(wanted*d), m.take(wanted*d)
	acts.h, acts.picked, acts.act = m.take(rows*d), m.take(wanted*d), m.take(rows*f)
	ranks := 2 * t.cfg.LoRA.Rank // at most two adapters share an input
	acts.low = m.take(rows * ranks)
	if gradients {
		acts.dFinal, acts.dPicked = m.take(wanted*d), m.take(wanted*d)
		acts.dh, acts.dLow = m.take(rows*d), m.take(rows*ranks)
	}
	block := t.attentionRows() * a.Heads / a.KVHeads
	for i := range acts.thread {
		s := &acts.thread[i]
		for _, keys := range []*[]float32{&s.keys, &s.values, &s.dKeys, &s.dValues} {
			*keys = m.take(p.longest * a.HeadDim)
		}
		for _, queries := range []*[]float32{&s.queries, &s.dOut, &s.out} {
			*queries = m.take(block * a.HeadDim)
		}
		s.probs, s.dProbs = m.take(block*p.longest), m.take(block*p.longest)
		s.sums = m.take(block)
		s.row = m.take(max(a.VocabSize, d, 2*a.HeadDim))
	}

	// The head is done before the backward pass begins.
	mark := m.used
	acts.logits = m.take(min(wanted, t.logitRows()) * a.VocabSize)
	if !gradients {
		return
	}
	m.used = mark
	acts.dx = m.take(rows * d)
	acts.dKV = m.take(rows * 2 * kv)
	acts.dAttn = m.take(rows * q)
	acts.dAct = m.take(rows * f)
	acts.gains = m.take(blocks(rows) * max(d, a.HeadDim))
}

func grow(s []float32, n int) []float32 {
	if cap(s) < n {
		return make([]float32, n, n+n/4)
	}
	return s[:n]
}
