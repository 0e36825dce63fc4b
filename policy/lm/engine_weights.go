package lm

import (
	"slices"

	"github.com/forager-rl/forager/policy/lm/kernel"
)

// packedWeights are a model's weights in the layout of the generation kernels.
// They share no memory with the model.
type packedWeights struct {
	format kernel.Format
	embed  []float32 // [vocab, hidden]
	layers []packedLayer
	norm   []float32
	head   *kernel.Packed
}

// packedLayer is one layer: layerParams with packed matrices.
type packedLayer struct {
	vectors                layerParams // no matrices
	qkv, out, gateUp, down *kernel.Packed
}

// load packs the weights of m, into the memory of the weights before.
func (p *packedWeights) load(m *Model, pool *kernel.Pool) {
	a := m.Arch
	d, q, f := a.HiddenSize, a.Heads*a.HeadDim, a.IntermediateSize
	type matrix struct {
		packed **kernel.Packed
		from   []float32
		n, k   int
	}
	if p.layers == nil {
		p.layers = make([]packedLayer, a.Layers)
	}
	list := []matrix{{&p.head, m.params.head, a.VocabSize, d}} // the largest first
	for l := range p.layers {
		to, w := &p.layers[l], m.params.layers[l]
		list = append(list,
			matrix{&to.gateUp, w.gateUp, 2 * f, d}, matrix{&to.down, w.down, d, f},
			matrix{&to.qkv, w.qkv, q + 2*a.KVHeads*a.HeadDim, d}, matrix{&to.out, w.out, d, q})
		to.vectors = layerParams{
			attnNorm: slices.Clone(w.attnNorm), mlpNorm: slices.Clone(w.mlpNorm),
			queryNorm: slices.Clone(w.queryNorm), keyNorm: slices.Clone(w.keyNorm),
			qkvBias: slices.Clone(w.qkvBias), outBias: slices.Clone(w.outBias),
			gateUpBias: slices.Clone(w.gateUpBias), downBias: slices.Clone(w.downBias),
		}
	}
	pool.Do(len(list), func(_, i int) {
		x := list[i]
		if *x.packed == nil {
			*x.packed = kernel.Pack(x.from, x.k, x.n, x.k, p.format)
		} else {
			(*x.packed).Repack(x.from, x.k)
		}
	})
	p.embed = append(p.embed[:0], m.params.embed...)
	p.norm = append(p.norm[:0], m.params.norm...)
}
