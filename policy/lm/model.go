package lm

import (
	"math"
	"math/rand/v2"
	"strconv"
)

// Model is an architecture and its weights. Weights lie in one flat buffer, so
// that copying, averaging and optimising them are loops over one slice.
type Model struct {
	Arch    Architecture
	Weights []float32 // every tensor, in the order of tensors()
	params  params
}

// params are views into one flat buffer, of weights or of their gradients.
type params struct {
	embed  []float32 // [vocab, hidden]
	layers []layerParams
	norm   []float32 // [hidden]
	head   []float32 // [vocab, hidden]; embed itself when tied
}

// layerParams are the views of one layer. Query, key and value projections are
// neighbours in memory and so are gate and up, so that each is one product.
// Biases and the norms of heads are nil where the architecture has none.
type layerParams struct {
	attnNorm   []float32 // [hidden]
	qkv        []float32 // [heads*dim + 2*kvHeads*dim, hidden]
	qkvBias    []float32 // [heads*dim + 2*kvHeads*dim]
	queryNorm  []float32 // [dim]
	keyNorm    []float32 // [dim]
	out        []float32 // [hidden, heads*dim]
	outBias    []float32 // [hidden]
	mlpNorm    []float32 // [hidden]
	gateUp     []float32 // [2*intermediate, hidden]
	gateUpBias []float32 // [2*intermediate]
	down       []float32 // [hidden, intermediate]
	downBias   []float32 // [hidden]
}

// tensor is one named matrix or vector of the Hugging Face layout.
type tensor struct {
	name   string
	shape  []int
	offset int // into the flat buffer
}

func (t tensor) len() int {
	n := 1
	for _, s := range t.shape {
		n *= s
	}
	return n
}

// tensors lists every tensor in memory order.
func (a Architecture) tensors() []tensor {
	var list []tensor
	offset := 0
	add := func(name string, shape ...int) {
		t := tensor{name: name, shape: shape, offset: offset}
		list = append(list, t)
		offset += t.len()
	}
	d, q, kv, f := a.HiddenSize, a.Heads*a.HeadDim, a.KVHeads*a.HeadDim, a.IntermediateSize
	add("model.embed_tokens.weight", a.VocabSize, d)
	for l := range a.Layers {
		prefix := "model.layers." + strconv.Itoa(l) + "."
		add(prefix+"input_layernorm.weight", d)
		add(prefix+"self_attn.q_proj.weight", q, d)
		add(prefix+"self_attn.k_proj.weight", kv, d)
		add(prefix+"self_attn.v_proj.weight", kv, d)
		if a.qkvBias() {
			add(prefix+"self_attn.q_proj.bias", q)
			add(prefix+"self_attn.k_proj.bias", kv)
			add(prefix+"self_attn.v_proj.bias", kv)
		}
		if a.headNorms() {
			add(prefix+"self_attn.q_norm.weight", a.HeadDim)
			add(prefix+"self_attn.k_norm.weight", a.HeadDim)
		}
		add(prefix+"self_attn.o_proj.weight", d, q)
		if a.outBias() {
			add(prefix+"self_attn.o_proj.bias", d)
		}
		add(prefix+"post_attention_layernorm.weight", d)
		add(prefix+"mlp.gate_proj.weight", f, d)
		add(prefix+"mlp.up_proj.weight", f, d)
		if a.MLPBias {
			add(prefix+"mlp.gate_proj.bias", f)
			add(prefix+"mlp.up_proj.bias", f)
		}
		add(prefix+"mlp.down_proj.weight", d, f)
		if a.MLPBias {
			add(prefix+"mlp.down_proj.bias", d)
		}
	}
	add("model.norm.weight", d)
	if !a.TieEmbeddings {
		add("lm_head.weight", a.VocabSize, d)
	}
	return list
}

// Parameters counts the weights.
func (a Architecture) Parameters() int {
	list := a.tensors()
	last := list[len(list)-1]
	return last.offset + last.len()
}

// view cuts a flat buffer into the tensors of the architecture.
func (a Architecture) view(flat []float32) params {
	d, q, kv, f := a.HiddenSize, a.Heads*a.HeadDim, a.KVHeads*a.HeadDim, a.IntermediateSize
	offset := 0
	take := func(n int) []float32 {
		s := flat[offset : offset+n : offset+n]
		offset += n
		return s
	}
	optional := func(has bool, n int) []float32 {
		if !has {
			return nil
		}
		return take(n)
	}
	p := params{embed: take(a.VocabSize * d), layers: make([]layerParams, a.Layers)}
	for l := range p.layers {
		p.layers[l] = layerParams{
			attnNorm:   take(d),
			qkv:        take((q + 2*kv) * d),
			qkvBias:    optional(a.qkvBias(), q+2*kv),
			queryNorm:  optional(a.headNorms(), a.HeadDim),
			keyNorm:    optional(a.headNorms(), a.HeadDim),
			out:        take(d * q),
			outBias:    optional(a.outBias(), d),
			mlpNorm:    take(d),
			gateUp:     take(2 * f * d),
			gateUpBias: optional(a.MLPBias, 2*f),
			down:       take(d * f),
			downBias:   optional(a.MLPBias, d),
		}
	}
	p.norm = take(d)
	p.head = p.embed
	if !a.TieEmbeddings {
		p.head = take(a.VocabSize * d)
	}
	return p
}

// newModel wraps a flat buffer of arch.Parameters() weights.
func newModel(arch Architecture, weights []float32) *Model {
	return &Model{Arch: arch, Weights: weights, params: arch.view(weights)}
}

// New makes a model with random weights: embeddings normal with standard
// deviation 0.02, matrices with 1/sqrt(hidden), so that their outputs start at
// unit scale whatever the width, output projections scaled down by
// sqrt(2·layers) (GPT-2, Radford et al. 2019), norms at 1, biases at 0.
func New(arch Architecture, random *rand.Rand) (*Model, error) {
	arch = arch.normalised()
	if err := arch.Validate(); err != nil {
		return nil, err
	}
	m := newModel(arch, make([]float32, arch.Parameters()))
	const embedding = 0.02
	std := 1 / math.Sqrt(float64(arch.HiddenSize))
	normal := func(w []float32, std float64) {
		for i := range w {
			w[i] = float32(random.NormFloat64() * std)
		}
	}
	residual := std / math.Sqrt(2*float64(arch.Layers))
	normal(m.params.embed, embedding)
	for _, l := range m.params.layers {
		fill(l.attnNorm, 1)
		normal(l.qkv, std)
		fill(l.queryNorm, 1)
		fill(l.keyNorm, 1)
		normal(l.out, residual)
		fill(l.mlpNorm, 1)
		normal(l.gateUp, std)
		normal(l.down, residual)
	}
	fill(m.params.norm, 1)
	if !arch.TieEmbeddings {
		normal(m.params.head, embedding)
	}
	return m, nil
}

// Clone copies the model and its weights.
func (m *Model) Clone() *Model {
	return newModel(m.Arch, append([]float32(nil), m.Weights...))
}

func fill(x []float32, v float32) {
	for i := range x {
		x[i] = v
	}
}
