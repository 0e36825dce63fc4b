package grpo

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/forager-rl/forager/learner"
)

// sequence makes n tokens whose first is prompt and whose last is policy.
func sequence(rng *rand.Rand, n int) learner.Sequence {
	s := learner.Sequence{
		Tokens: make([]int32, n), Mask: make([]bool, n), Behavior: make([]float32, n),
		Reference: make([]float32, n), Advantages: make([]float32, n),
	}
	for t := 1; t < n; t++ {
		s.Mask[t] = rng.IntN(3) > 0 || t == n-1
		if s.Mask[t] {
			s.Behavior[t] = -float32(rng.ExpFloat64())
			s.Reference[t] = -float32(rng.ExpFloat64())
		}
	}
	return s
}

func one(behavior, reference, advantage float32) *learner.Sequence {
	return &learner.Sequence{
		Tokens: make([]int32, 1), Mask: []bool{true}, Behavior: []float32{behavior},
		Reference: []float32{reference}, Advantages: []float32{advantage},
	}
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 1e-5*max(1, math.Abs(want)) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// §4.1.2: "the advantages of all tokens in the output [are] the normalized
// reward", (r_i − mean(r)) / std(r).
func TestSection4_1_2_AdvantageIsNormalisedReward(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	group := []learner.Sequence{sequence(rng, 9), sequence(rng, 4), sequence(rng, 6), sequence(rng, 5)}
	if !New(DefaultConfig()).Advantages(group, []float64{1, 0, 0, 1}) {
		t.Fatal("a group with both outcomes is informative")
	}
	for i, want := range []float64{1, -1, -1, 1} {
		for tok, m := range group[i].Mask {
			if !m {
				want := float32(0)
				if group[i].Advantages[tok] != want {
					t.Errorf("output %d token %d is not the policy's and has an advantage", i, tok)
				}
				continue
			}
			near(t, fmt.Sprintf("output %d token %d", i, tok), float64(group[i].Advantages[tok]), want)
		}
	}
}

func TestSection4_1_2_AdvantagesOfAGroupSumToZero(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for _, normalise := range []bool{true, false} {
		config := DefaultConfig()
		config.NormalizeStd = normalise
		for range 100 {
			group, rewards := make([]learner.Sequence, 2+rng.IntN(15)), []float64(nil)
			for i := range group {
				group[i] = sequence(rng, 2+rng.IntN(8))
				rewards = append(rewards, rng.NormFloat64()*10)
			}
			New(config).Advantages(group, rewards)
			sum := 0.0
			for _, s := range group {
				sum += float64(s.Advantages[len(s.Tokens)-1])
			}
			near(t, "sum", sum, 0)
		}
	}
}

func TestSection4_1_2_EqualRewardsTeachNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for _, drop := range []bool{true, false} {
		config := DefaultConfig()
		config.DropZeroVariance = drop
		group := []learner.Sequence{sequence(rng, 5), sequence(rng, 5)}
		if informative := New(config).Advantages(group, []float64{.1, .1}); informative == drop {
			t.Errorf("drop %v: informative %v", drop, informative)
		}
		if a := group[0].Advantages[4]; a != 0 {
			t.Errorf("advantage %v, want 0", a)
		}
	}
}

// Eq. 3: min[ρ Â, clip(ρ, 1−ε, 1+ε) Â].
func TestEquation3_ClippedSurrogate(t *testing.T) {
	config := DefaultConfig()
	config.KLCoefficient, config.ClipLow, config.ClipHigh = 0, 0.2, 0.3
	for _, c := range []struct {
		ratio, advantage, surrogate, slope float64
		clipped                            int
	}{
		{ratio: 1, advantage: 2, surrogate: 2, slope: 2},
		{ratio: 1.25, advantage: 2, surrogate: 2.5, slope: 2.5},
		{ratio: 1.5, advantage: 2, surrogate: 2.6, slope: 0, clipped: 1},
		{ratio: 0.5, advantage: 2, surrogate: 1, slope: 1},
		{ratio: 0.5, advantage: -2, surrogate: -1.6, slope: 0, clipped: 1},
		{ratio: 1.5, advantage: -2, surrogate: -3, slope: -3},
	} {
		grad := []float32{0}
		logp := []float32{float32(math.Log(c.ratio)) - 1}
		terms := New(config).Loss(one(-1, 0, float32(c.advantage)), logp, 4, grad)
		name := fmt.Sprintf("ratio %g advantage %g", c.ratio, c.advantage)
		near(t, name+" loss", terms.Loss, -c.surrogate/4)
		near(t, name+" slope", float64(grad[0]), -c.slope/4)
		near(t, name+" ratio", terms.Ratio, c.ratio)
		if terms.Clipped != c.clipped {
			t.Errorf("%s: clipped %d, want %d", name, terms.Clipped, c.clipped)
		}
	}
}

// Eq. 4: D_KL = π_ref/π_θ − log(π_ref/π_θ) − 1, "guaranteed to be positive".
func TestEquation4_DivergenceFromReference(t *testing.T) {
	config := DefaultConfig()
	config.KLCoefficient = 0.5
	for _, c := range [][2]float64{{.2, .2}, {.5, .1}, {.1, .5}} {
		pi, ref := c[0], c[1]
		terms := New(config).Loss(one(float32(math.Log(pi)), float32(math.Log(ref)), 0), []float32{float32(math.Log(pi))}, 1, []float32{0})
		want := ref/pi - math.Log(ref/pi) - 1
		near(t, fmt.Sprintf("π %g reference %g", pi, ref), terms.KL, want)
		near(t, "loss", terms.Loss, 0.5*want)
		if terms.KL < 0 {
			t.Error("divergence is negative")
		}
	}
}

// Appendix A.1.6, the gradient coefficient when π_θ = π_old:
// Â + β (π_ref/π_θ − 1).
func TestAppendixA1_6_GradientCoefficient(t *testing.T) {
	config := DefaultConfig()
	config.KLCoefficient = 0.04
	pi, ref, advantage := .3, .6, 1.7
	grad := []float32{0}
	logp := float32(math.Log(pi))
	New(config).Loss(one(logp, float32(math.Log(ref)), float32(advantage)), []float32{logp}, 1, grad)
	near(t, "coefficient", -float64(grad[0]), advantage+0.04*(ref/pi-1))
}

// The analytic derivative agrees with finite differences of the loss, and
// tokens that the policy did not sample have none.
func TestGradientMatchesFiniteDifferences(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	config := DefaultConfig()
	config.KLCoefficient = 0.1
	g := New(config)
	for range 50 {
		s := sequence(rng, 12)
		logp := make([]float32, 12)
		for i := range logp {
			s.Advantages[i] = float32(rng.NormFloat64())
			logp[i] = s.Behavior[i] + float32(rng.NormFloat64())*0.3
		}
		grad := make([]float32, 12)
		g.Loss(&s, logp, 7, grad)
		for i := range logp {
			if !s.Mask[i] {
				if grad[i] != 0 {
					t.Fatalf("token %d is masked out and has gradient %v", i, grad[i])
				}
				continue
			}
			if ratio := math.Exp(float64(logp[i] - s.Behavior[i])); math.Abs(ratio-0.8) < 0.01 || math.Abs(ratio-1.2) < 0.01 {
				continue // the kink of the clip has no derivative
			}
			const h = 1e-3
			at := func(x float32) float64 {
				moved := append([]float32(nil), logp...)
				moved[i] = x
				return g.Loss(&s, moved, 7, make([]float32, 12)).Loss
			}
			up, down := logp[i]+h, logp[i]-h
			want := (at(up) - at(down)) / float64(up-down)
			if math.Abs(want-float64(grad[i])) > 1e-3*max(1, math.Abs(want)) {
				t.Fatalf("token %d: analytic %v, finite difference %v", i, grad[i], want)
			}
		}
	}
}

func TestExtremeLogprobsStayFinite(t *testing.T) {
	g := New(DefaultConfig())
	inf := float32(math.Inf(-1))
	for _, c := range [][3]float32{{-1e30, 0, 0}, {0, -1e30, -1e30}, {inf, inf, inf}, {0, inf, inf}} {
		grad := []float32{0}
		g.Loss(one(c[1], c[2], -1), c[:1], 1, grad)
		if v := float64(grad[0]); math.IsNaN(v) || math.IsInf(v, 0) {
			t.Errorf("log-probabilities %v give gradient %v", c, v)
		}
	}
}

func TestValidateNamesEveryBadKey(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Fatal(err)
	}
	if err := (Config{KLCoefficient: -1}).Validate(); err == nil {
		t.Fatal("bad coefficients pass")
	}
}

func BenchmarkLoss(b *testing.B) {
	rng := rand.New(rand.NewPCG(5, 5))
	s := sequence(rng, 512)
	logp, grad := make([]float32, 512), make([]float32, 512)
	g := New(DefaultConfig())
	b.ReportAllocs()
	for b.Loop() {
		g.Loss(&s, logp, 1, grad)
	}
	b.ReportMetric(float64(512*b.N)/b.Elapsed().Seconds(), "tokens/s")
}
