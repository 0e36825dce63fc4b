package lm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy/lm/kernel"
)

// LoRAConfig says which matrices get low-rank adapters (LoRA, Hu et al. 2021,
// arXiv 2106.09685): W becomes W + (alpha/rank)·B·A, and only A [rank, in] and B
// [out, rank] are trained.
type LoRAConfig struct {
	// Rank is the number of rows of A and columns of B; 0 trains the model's
	// own weights.
	Rank int `mapstructure:"rank"`
	// Alpha scales the adapters, by Alpha/Rank.
	Alpha float32 `mapstructure:"alpha"`
	// Targets are the adapted projections of every layer: any of q_proj,
	// k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj.
	Targets []string `mapstructure:"targets"`
	// Seed fixes the random start of A.
	Seed uint64 `mapstructure:"-"`
}

// DefaultLoRAConfig is full fine-tuning, and all projections once a rank is
// set.
func DefaultLoRAConfig() LoRAConfig {
	return LoRAConfig{Alpha: 16, Targets: slices.Concat(adapted[:]...)}
}

// Validate reports the first setting out of range.
func (c LoRAConfig) Validate() error {
	switch {
	case c.Rank < 0:
		return fmt.Errorf("rank is %d, want 0 or more", c.Rank)
	case c.Rank == 0:
		return nil
	case c.Alpha <= 0:
		return fmt.Errorf("alpha is %g, want more than 0", c.Alpha)
	case len(c.Targets) == 0:
		return fmt.Errorf("targets is empty, want some of %s", strings.Join(slices.Concat(adapted[:]...), ", "))
	}
	known := slices.Concat(adapted[:]...)
	for _, name := range c.Targets {
		if !slices.Contains(known, name) {
			return fmt.Errorf("target %q is unknown, want some of %s", name, strings.Join(known, ", "))
		}
	}
	return nil
}

// adapted are the projections of a layer, those that are one product together.
var adapted = [...][]string{{"q_proj"}, {"k_proj", "v_proj"}, {"o_proj"}, {"gate_proj", "up_proj"}, {"down_proj"}}

// Adapter is low-rank changes to the projections of a model.
type Adapter struct {
	Config LoRAConfig
	Arch   Architecture // of the model that it changes
	// Weights are every A and B, in the order of tensors().
	Weights []float32
}

// NewAdapter makes an adapter that changes nothing yet: B is 0, and A is drawn
// uniformly from ±1/√in, as PEFT does (He et al. 2015, arXiv 1502.01852, for
// leaky units of slope √5).
func NewAdapter(arch Architecture, cfg LoRAConfig) (*Adapter, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("lora: %w", err)
	}
	if cfg.Rank == 0 {
		return nil, fmt.Errorf("lora: rank is 0, want at least 1")
	}
	a := &Adapter{Config: cfg, Arch: arch}
	list := a.tensors()
	a.Weights = make([]float32, list[len(list)-1].offset+list[len(list)-1].len())
	random := rand.New(rand.NewPCG(cfg.Seed, 0))
	for _, t := range list {
		if strings.HasSuffix(t.name, loraA) {
			bound := 1 / math.Sqrt(float64(t.shape[1]))
			for i := range t.len() {
				a.Weights[t.offset+i] = float32((2*random.Float64() - 1) * bound)
			}
		}
	}
	return a, nil
}

// Ends of the tensors' names in PEFT.
const (
	loraA = ".lora_A.weight"
	loraB = ".lora_B.weight"
)

// adaptedProduct is the adapters of one product of a layer.
type adaptedProduct struct {
	in    int
	parts []adaptedPart
	from  int // offset of the first A in the flat buffer; the others follow, then every B
}

type adaptedPart struct {
	name     string // in Hugging Face's layout
	from, to int    // columns of the product
}

// products lists the adapters of every layer in memory order, for each of its
// five products. Products without adapters have no parts.
func (a *Adapter) products() [][len(adapted)]adaptedProduct {
	arch, rank := a.Arch, a.Config.Rank
	d, q, kv, f := arch.HiddenSize, arch.Heads*arch.HeadDim, arch.KVHeads*arch.HeadDim, arch.IntermediateSize
	shapes := [len(adapted)]struct{ in, out int }{{d, q}, {d, kv}, {q, d}, {d, f}, {f, d}} // of one projection
	list := make([][len(adapted)]adaptedProduct, arch.Layers)
	offset := 0
	for l := range list {
		for i, names := range adapted {
			p := adaptedProduct{in: shapes[i].in, from: offset}
			for j, name := range names {
				if !slices.Contains(a.Config.Targets, name) {
					continue
				}
				block := "self_attn."
				if i > 2 {
					block = "mlp."
				}
				p.parts = append(p.parts, adaptedPart{
					name: "model.layers." + strconv.Itoa(l) + "." + block + name,
					from: j * shapes[i].out, to: (j + 1) * shapes[i].out,
				})
				offset += rank * (shapes[i].in + shapes[i].out)
			}
			list[l][i] = p
		}
	}
	return list
}

// tensors lists every A and B by PEFT's name, in memory order.
func (a *Adapter) tensors() []tensor {
	var list []tensor
	offset := 0
	add := func(name string, rows, columns int) {
		list = append(list, tensor{name: "base_model.model." + name, shape: []int{rows, columns}, offset: offset})
		offset += rows * columns
	}
	for _, layer := range a.products() {
		for _, p := range layer {
			for _, part := range p.parts {
				add(part.name+loraA, a.Config.Rank, p.in)
			}
			for _, part := range p.parts {
				add(part.name+loraB, part.to-part.from, a.Config.Rank)
			}
		}
	}
	return list
}

// view cuts the adapters of a product out of a flat buffer, of weights or of
// gradients: every A, one after another, and each B.
func (a *Adapter) view(flat []float32, p adaptedProduct) (first []float32, second [][]float32) {
	end := p.from + len(p.parts)*a.Config.Rank*p.in
	first = flat[p.from:end]
	for _, part := range p.parts {
		n := (part.to - part.from) * a.Config.Rank
		second = append(second, flat[end:end+n])
		end += n
	}
	return first, second
}

// attach gives the products of a model's layers their adapters. gradients may
// be nil.
func (a *Adapter) attach(layers []layer, gradients []float32) {
	for l, products := range a.products() {
		for i, p := range products {
			product := layers[l].products()[i]
			product.frozenBelow = l == 0 && i < 2
			if len(p.parts) == 0 {
				continue
			}
			low := &lowRank{rank: a.Config.Rank, scale: a.scale()}
			var b, dB [][]float32
			low.a, b = a.view(a.Weights, p)
			if gradients != nil {
				low.dA, dB = a.view(gradients, p)
			}
			for j, part := range p.parts {
				low.parts = append(low.parts, lowRankPart{from: part.from, to: part.to, b: b[j]})
				if dB != nil {
					low.parts[j].dB = dB[j]
				}
			}
			product.lowRank = low
		}
	}
}

func (a *Adapter) scale() float32 { return a.Config.Alpha / float32(a.Config.Rank) }

// Merge gives a model whose weights are base's with the adapter added. An
// adapter for another architecture is refused with forager.ErrArchitecture.
func (a *Adapter) Merge(base *Model) (*Model, error) {
	if !a.Arch.sameShape(base.Arch) {
		return nil, fmt.Errorf("merge an adapter: it is for %s, the model is %s: %w", a.Arch, base.Arch, forager.ErrArchitecture)
	}
	return a.merge(base, nil), nil
}

func (a *Adapter) merge(base *Model, pool *kernel.Pool) *Model {
	m := base.Clone()
	layers := make([]layer, len(m.params.layers))
	for l := range layers {
		layers[l] = newLayer(m.Arch, m.params.layers[l], layerParams{})
	}
	a.attach(layers, nil)
	var scaled []float32
	for l := range layers {
		for _, product := range layers[l].products() {
			low := product.lowRank
			if low == nil {
				continue
			}
			for i, part := range low.parts {
				scaled = append(scaled[:0], part.b...)
				kernel.Scale(low.scale, scaled)
				pool.MatMul(product.weight[part.from*product.in:], product.in, scaled, low.rank,
					low.a[i*low.rank*product.in:], product.in, part.to-part.from, product.in, low.rank, true)
			}
		}
	}
	return m
}
