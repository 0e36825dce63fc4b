package lm

import (
	"errors"
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

func TestNothingIsMasked(t *testing.T) {
	tr := newTrainer(t, loud(t, small(true), 1), nil)
	s := randomSequences(9, 37, 20)[0]
	clear(s.Mask)
	calls := 0
	if err := tr.Accumulate([]Sequence{s, s}, func(_ int, logp, _ []float32) { calls += len(logp) }); err != nil {
		t.Fatal(err)
	}
	if calls != 40 {
		t.Errorf("the loss saw %d positions, want 40", calls)
	}
	if norm, finite := tr.Update(1e-2); norm != 0 || !finite {
		t.Errorf("the gradient's norm is %g", norm)
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
