package lm

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/forager-rl/forager"
)

// small is an architecture with every feature and few weights.
func small(tied bool) Architecture {
	return Architecture{
		VocabSize: 37, HiddenSize: 16, IntermediateSize: 24, Layers: 2, Heads: 4, KVHeads: 2,
		HeadDim: 6, ContextLength: 200, TieEmbeddings: tied,
	}.normalised()
}

// loud makes a model whose weights are large enough for curvature to matter.
func loud(t testing.TB, arch Architecture, seed uint64) *Model {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	m, err := New(arch, random)
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.Weights {
		m.Weights[i] += float32(random.NormFloat64() * 0.3)
	}
	return m
}

func randomSequences(seed uint64, vocab int, lengths ...int) []Sequence {
	random := rand.New(rand.NewPCG(seed, 2))
	var list []Sequence
	for _, n := range lengths {
		s := Sequence{Tokens: make([]int32, n), Mask: make([]bool, n)}
		for i := range n {
			s.Tokens[i] = int32(random.IntN(vocab))
			s.Mask[i] = i > 0 && random.IntN(2) == 0
		}
		list = append(list, s)
	}
	return list
}

func newTrainer(t testing.TB, m *Model, change func(*TrainerConfig)) *Trainer {
	t.Helper()
	cfg := DefaultTrainerConfig()
	cfg.Threads = 2
	if change != nil {
		change(&cfg)
	}
	tr, err := NewTrainer(m, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Close)
	return tr
}

// TestGradients compares the gradient of Σ c·logp with central differences for
// weights of every tensor.
func TestGradients(t *testing.T) {
	for _, tied := range []bool{true, false} {
		t.Run(fmt.Sprintf("tied=%v", tied), func(t *testing.T) {
			m := loud(t, small(tied), 7)
			seqs := randomSequences(3, m.Arch.VocabSize, 9, 70, 1, 30)
			weight := func(i, j int) float64 { return math.Sin(float64(i*31 + j)) }
			loss := func() float64 {
				tr := newTrainer(t, m, func(c *TrainerConfig) { c.Temperature = 0.7 })
				logps, err := tr.Logprobs(seqs)
				if err != nil {
					t.Fatal(err)
				}
				total := 0.0
				for i, l := range logps {
					for j, v := range l {
						total += weight(i, j) * float64(v)
					}
				}
				return total
			}
			tr := newTrainer(t, m, func(c *TrainerConfig) { c.MicroBatchTokens, c.Temperature = 75, 0.7 })
			if err := tr.Accumulate(seqs, func(i int, _, grad []float32) {
				for j := range grad {
					grad[j] = float32(weight(i, j))
				}
			}); err != nil {
				t.Fatal(err)
			}
			random := rand.New(rand.NewPCG(5, 5))
			for _, tensor := range m.Arch.tensors() {
				var diff, size float64
				for range 12 {
					k := tensor.offset + random.IntN(tensor.len())
					const h = 4e-3
					old := m.Weights[k]
					m.Weights[k] = old + h
					up := loss()
					m.Weights[k] = old - h
					down := loss()
					m.Weights[k] = old
					numeric := (up - down) / (2 * h)
					diff += (numeric - float64(tr.gradients[k])) * (numeric - float64(tr.gradients[k]))
					size += numeric * numeric
				}
				if diff > 4e-4*size+1e-6 { // 2 % in norm: float32 forward, step 4e-3
					t.Errorf("%s: gradient off by %.3g relative", tensor.name, math.Sqrt(diff/size))
				}
			}
		})
	}
}

func TestGradientsDoNotDependOnThreads(t *testing.T) {
	seqs := randomSequences(4, 37, 50, 120, 13, 80, 199)
	var first []float32
	for _, threads := range []int{1, 2, 3} {
		m := loud(t, small(true), 1)
		tr := newTrainer(t, m, func(c *TrainerConfig) { c.Threads = threads })
		if err := tr.Accumulate(seqs, func(_ int, logp, grad []float32) { copy(grad, logp) }); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = append(first, tr.gradients...)
		}
		for i, g := range tr.gradients {
			if g != first[i] {
				t.Fatalf("%d threads: gradient %d is %g, with one thread %g", threads, i, g, first[i])
			}
		}
	}
}

func TestUpdateLearnsASequence(t *testing.T) {
	m, err := New(small(true), rand.New(rand.NewPCG(1, 1)))
	if err != nil {
		t.Fatal(err)
	}
	tr := newTrainer(t, m, nil)
	seqs := randomSequences(9, 37, 40)
	mean := func() float64 {
		logps, _ := tr.Logprobs(seqs)
		total, n := 0.0, 0
		for j, v := range logps[0] {
			if seqs[0].Mask[j] {
				total += float64(v)
				n++
			}
		}
		return total / float64(n)
	}
	before := mean()
	for range 60 {
		if err := tr.Accumulate(seqs, func(_ int, _, grad []float32) { fill(grad, -0.05) }); err != nil {
			t.Fatal(err)
		}
		if _, finite := tr.Update(1e-2); !finite {
			t.Fatal("update was not finite")
		}
	}
	if after := mean(); before > -3 || after < -0.1 {
		t.Errorf("mean log-probability went from %.2f to %.2f, want from about -3.6 to near 0", before, after)
	}
}

func TestNonFiniteGradientLeavesWeights(t *testing.T) {
	m := loud(t, small(true), 1)
	want := m.Clone()
	tr := newTrainer(t, m, nil)
	seqs := randomSequences(9, 37, 20)
	if err := tr.Accumulate(seqs, func(_ int, _, grad []float32) { fill(grad, float32(math.NaN())) }); err != nil {
		t.Fatal(err)
	}
	if _, finite := tr.Update(1e-2); finite {
		t.Fatal("a NaN gradient counted as finite")
	}
	for i, w := range m.Weights {
		if w != want.Weights[i] {
			t.Fatal("weights changed")
		}
	}
	if norm, finite := tr.Update(1e-2); !finite || norm != 0 {
		t.Errorf("the gradient was not cleared: norm %g", norm)
	}
}

func TestRefusesBadSequences(t *testing.T) {
	tr := newTrainer(t, loud(t, small(true), 1), nil)
	for name, s := range map[string]Sequence{
		"empty":       {},
		"mask length": {Tokens: []int32{1, 2}, Mask: []bool{false}},
		"first token": {Tokens: []int32{1, 2}, Mask: []bool{true, false}},
		"vocabulary":  {Tokens: []int32{1, 37}, Mask: []bool{false, true}},
		"negative":    {Tokens: []int32{1, -1}, Mask: []bool{false, true}},
		"too long":    {Tokens: make([]int32, 201), Mask: make([]bool, 201)},
	} {
		if _, err := tr.Logprobs([]Sequence{s}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestSaveLoadAndResume(t *testing.T) {
	dir := t.TempDir()
	seqs := randomSequences(9, 37, 40, 60)
	step := func(tr *Trainer) {
		if err := tr.Accumulate(seqs, func(_ int, _, grad []float32) { fill(grad, -0.01) }); err != nil {
			t.Fatal(err)
		}
		tr.Update(1e-3)
	}
	a := newTrainer(t, loud(t, small(false), 3), nil)
	for range 3 {
		step(a)
	}
	if err := errors.Join(a.Model().Save(dir), a.State().Save(dir)); err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	b := newTrainer(t, loaded, nil)
	state, err := LoadOptimizer(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Restore(state); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		step(a)
		step(b)
	}
	for i, w := range a.Model().Weights {
		if w != b.Model().Weights[i] {
			t.Fatalf("weight %d differs after resume: %g and %g", i, w, b.Model().Weights[i])
		}
	}
	data, err := a.Model().Encode()
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if decoded.Arch.String() != a.Model().Arch.String() || decoded.Weights[5] != a.Model().Weights[5] {
		t.Error("broadcast form lost something")
	}
	if _, err := Decode(data[:len(data)/2]); !errors.Is(err, forager.ErrCorrupt) {
		t.Errorf("half a file: %v, want ErrCorrupt", err)
	}
}

func BenchmarkTrainTiny(b *testing.B) {
	m, err := New(Tiny(1024), rand.New(rand.NewPCG(1, 1)))
	if err != nil {
		b.Fatal(err)
	}
	tr := newTrainer(b, m, nil)
	lengths := make([]int, 16)
	for i := range lengths {
		lengths[i] = 240
	}
	seqs := randomSequences(1, 1024, lengths...)
	for i := range seqs {
		for j := range seqs[i].Mask {
			seqs[i].Mask[j] = j%4 == 3
		}
	}
	for b.Loop() {
		if err := tr.Accumulate(seqs, func(_ int, _, grad []float32) { fill(grad, -1e-3) }); err != nil {
			b.Fatal(err)
		}
		tr.Update(1e-4)
	}
	b.ReportMetric(float64(b.N)*16*240/b.Elapsed().Seconds(), "tokens/s")
}

// TestLogitsAgreeWithLogprobs normalises Logits and compares with Logprobs.
func TestLogitsAgreeWithLogprobs(t *testing.T) {
	tr := newTrainer(t, loud(t, small(true), 7), nil)
	s := randomSequences(3, 37, 40)[0]
	logits, err := tr.Logits(s.Tokens)
	if err != nil {
		t.Fatal(err)
	}
	logps, err := tr.Logprobs([]Sequence{s})
	if err != nil {
		t.Fatal(err)
	}
	for j, masked := range s.Mask {
		if !masked {
			continue
		}
		sum := 0.0
		row := logits[(j-1)*37:][:37]
		for _, v := range row {
			sum += math.Exp(float64(v))
		}
		want := float64(row[s.Tokens[j]]) - math.Log(sum)
		if math.Abs(want-float64(logps[0][j])) > 1e-4 {
			t.Errorf("position %d: log-probability %g, from the logits %g", j, logps[0][j], want)
		}
	}
}
