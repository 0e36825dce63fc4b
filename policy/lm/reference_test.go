package lm

import (
	"math"
	"testing"

	"github.com/forager-rl/forager/policy"
)

// referenceLogprobs is the model in float64 with one loop per formula, nothing
// shared with the code under test but the rotation's angles: log-probabilities
// [len(tokens), vocab] of the token after each position.
func referenceLogprobs(m *Model, tokens []int32) [][]float64 {
	a := m.Arch
	linear := func(x []float64, w, bias []float32) []float64 {
		y := make([]float64, len(w)/len(x))
		for i := range y {
			for j, v := range x {
				y[i] += v * float64(w[i*len(x)+j])
			}
			if bias != nil {
				y[i] += float64(bias[i])
			}
		}
		return y
	}
	norm := func(x []float64, gain []float32) []float64 {
		sum := 0.0
		for _, v := range x {
			sum += v * v
		}
		y := make([]float64, len(x))
		for i, v := range x {
			y[i] = v * float64(gain[i]) / math.Sqrt(sum/float64(len(x))+float64(a.NormEpsilon))
		}
		return y
	}
	frequencies, magnitude := a.rotations()
	head := func(x []float64, gain []float32, position int) []float64 {
		if gain != nil {
			x = norm(x, gain)
		}
		y, half := make([]float64, len(x)), len(x)/2
		for i, f := range frequencies {
			sin, cos := math.Sincos(float64(position) * f)
			y[i] = magnitude * (x[i]*cos - x[i+half]*sin)
			y[i+half] = magnitude * (x[i+half]*cos + x[i]*sin)
		}
		return y
	}
	softmax := func(x []float64) []float64 {
		y, sum := make([]float64, len(x)), 0.0
		for i, v := range x {
			y[i] = math.Exp(v)
			sum += y[i]
		}
		for i := range y {
			y[i] /= sum
		}
		return y
	}
	add := func(x, y []float64) {
		for i, v := range y {
			x[i] += v
		}
	}
	d, dim, q, kv, f := a.HiddenSize, a.HeadDim, a.Heads*a.HeadDim, a.KVHeads*a.HeadDim, a.IntermediateSize
	keys := make([][][]float64, a.Layers*a.KVHeads) // by layer and head, by position
	values := make([][][]float64, a.Layers*a.KVHeads)
	var out [][]float64
	for position, id := range tokens {
		x := make([]float64, d)
		for i, v := range m.params.embed[int(id)*d:][:d] {
			x[i] = float64(v)
		}
		for l, w := range m.params.layers {
			qkv := linear(norm(x, w.attnNorm), w.qkv, w.qkvBias)
			for h := range a.KVHeads {
				i := l*a.KVHeads + h
				keys[i] = append(keys[i], head(qkv[q+h*dim:][:dim], w.keyNorm, position))
				values[i] = append(values[i], qkv[q+kv+h*dim:][:dim])
			}
			attn := make([]float64, q)
			for h := range a.Heads {
				query := head(qkv[h*dim:][:dim], w.queryNorm, position)
				i := l*a.KVHeads + h/(a.Heads/a.KVHeads)
				scores := make([]float64, position+1)
				for t, key := range keys[i] {
					for j, v := range query {
						scores[t] += v * key[j] / math.Sqrt(float64(dim))
					}
				}
				for t, p := range softmax(scores) {
					for j, v := range values[i][t] {
						attn[h*dim+j] += p * v
					}
				}
			}
			add(x, linear(attn, w.out, w.outBias))
			gateUp := linear(norm(x, w.mlpNorm), w.gateUp, w.gateUpBias)
			act := make([]float64, f)
			for i := range act {
				g := gateUp[i]
				act[i] = g / (1 + math.Exp(-g)) * gateUp[f+i]
			}
			add(x, linear(act, w.down, w.downBias))
		}
		logps := softmax(linear(norm(x, m.params.norm), m.params.head, nil))
		for i, p := range logps {
			logps[i] = math.Log(p)
		}
		out = append(out, logps)
	}
	return out
}

// family is one small architecture per member and feature of the family.
func family() map[string]Architecture {
	list := map[string]Architecture{}
	for _, name := range []string{"llama", "qwen2", "qwen3"} {
		a := small(name != "llama")
		a.ModelType, a.Architectures = name, nil
		list[name] = a.normalised()
	}
	biased := small(false)
	biased.AttnBias, biased.MLPBias = true, true
	list["llama with biases"] = biased
	for _, s := range []RopeScaling{
		{Type: "linear", Factor: 4},
		{Type: "llama3", Factor: 8, LowFrequency: 1, HighFrequency: 4, OriginalContext: 60},
		{Type: "yarn", Factor: 4, OriginalContext: 50},
	} {
		a := small(true)
		a.RopeScaling = s.normalised(a.ContextLength)
		list["llama with "+s.Type+" rotations"] = a
	}
	return list
}

// TestEngineAgreesWithReference samples from every member of the family and
// compares log-probabilities of engine, trainer and plain formulas.
func TestEngineAgreesWithReference(t *testing.T) {
	for name, arch := range family() {
		t.Run(name, func(t *testing.T) {
			m := loud(t, arch, 23)
			e := start(t, m, letters(-1), bounded(2, 7, 2))
			prompt := []int32{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4}
			out, err := e.Generate(t.Context(), policy.Request{Session: 1, Context: prompt, MaxTokens: 60, Temperature: 1, Seed: 5})
			if err != nil {
				t.Fatal(err)
			}
			s := Sequence{Tokens: append(append([]int32{}, prompt...), out.Tokens...)}
			s.Mask = make([]bool, len(s.Tokens))
			for i := range out.Tokens {
				s.Mask[len(prompt)+i] = true
			}
			trained, err := newTrainer(t, m, nil).Logprobs([]Sequence{s})
			if err != nil {
				t.Fatal(err)
			}
			want := referenceLogprobs(m, s.Tokens)
			for i, id := range out.Tokens {
				w := want[len(prompt)+i-1][id]
				for name, got := range map[string]float32{"engine": out.Logprobs[i], "trainer": trained[0][len(prompt)+i]} {
					if math.Abs(w-float64(got)) > 1e-4 {
						t.Fatalf("new token %d: log-probability %g in the %s, want %g", i, got, name, w)
					}
				}
			}
		})
	}
}
