package lm

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/forager-rl/forager/policy"
)

// TestRestrictKeepsTheMostProbable compares with sorting, over flat, peaked and
// tied weights.
func TestRestrictKeepsTheMostProbable(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	var s sampler
	for round := range 300 {
		n := 1 + random.IntN(700)
		s.weights = make([]float32, n)
		total := 0.0
		for i := range s.weights {
			switch round % 3 {
			case 0:
				s.weights[i] = float32(math.Exp(random.NormFloat64() * 6))
			case 1:
				s.weights[i] = random.Float32()
			case 2:
				s.weights[i] = float32(random.IntN(4))
			}
			total += float64(s.weights[i])
		}
		k, mass := random.IntN(n+2), random.Float64()*total
		if round%5 == 0 {
			mass = 0
		}
		order := make([]int, n)
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(a, b int) int {
			return cmp.Or(cmp.Compare(s.weights[b], s.weights[a]), cmp.Compare(a, b))
		})
		want := make([]float32, n)
		kept := 0.0
		for i, id := range order {
			if k > 0 && i == k || mass > 0 && kept >= mass*(1+1e-12) {
				break
			}
			want[id] = s.weights[id]
			kept += float64(s.weights[id])
		}
		s.restrict(k, mass)
		if !slices.Equal(s.weights, want) {
			t.Fatalf("round %d, k %d, mass %g of %g:\n got  %v\n want %v", round, k, mass, total, s.weights, want)
		}
	}
}

// TestDrawsFollowTheDistribution draws often and compares frequencies with
// softmax, restricted as the request says. Log-probabilities are unrestricted.
func TestDrawsFollowTheDistribution(t *testing.T) {
	const vocab, draws = 600, 20000
	logits := make([]float32, vocab)
	random := rand.New(rand.NewPCG(3, 3))
	for i := range logits {
		logits[i] = float32(random.NormFloat64() * 2)
	}
	logits[17], logits[300] = 8, 7.5
	for _, c := range []struct {
		name     string
		req      policy.Request
		excluded []int32
		kept     func(rank int, above float64) bool // above: probability of the more probable
	}{
		{"free", policy.Request{Temperature: 1}, nil, nil},
		{"tempered", policy.Request{Temperature: 0.7}, nil, nil},
		{"top 3", policy.Request{Temperature: 1, TopK: 3}, nil, func(rank int, _ float64) bool { return rank < 3 }},
		{"nucleus", policy.Request{Temperature: 1, TopP: 0.6}, nil, func(_ int, above float64) bool { return above < 0.6 }},
		{"excluded", policy.Request{Temperature: 1}, []int32{17}, nil},
	} {
		probs := make([]float64, vocab)
		total := 0.0
		for i, l := range logits {
			probs[i] = math.Exp(float64(l) / float64(c.req.Temperature))
			total += probs[i]
		}
		order := make([]int, vocab)
		for i := range probs {
			probs[i] /= total
			order[i] = i
		}
		slices.SortFunc(order, func(a, b int) int { return cmp.Compare(probs[b], probs[a]) })
		want, mass, above := make([]float64, vocab), 0.0, 0.0
		for rank, id := range order {
			if (c.kept == nil || c.kept(rank, above)) && !slices.Contains(c.excluded, int32(id)) {
				want[id] = probs[id]
				mass += probs[id]
			}
			above += probs[id]
		}
		var s sampler
		counts := make([]float64, vocab)
		c.req.Seed = 9
		for i := range draws {
			d := s.draw(slices.Clone(logits), &c.req, i, c.excluded)
			counts[d.token]++
			if w := math.Log(probs[d.token]); math.Abs(float64(d.logprob)-w) > 1e-5 {
				t.Fatalf("%s: token %d has log-probability %g, want %g", c.name, d.token, d.logprob, w)
			}
		}
		for i := range want {
			p := want[i] / mass
			if p == 0 && counts[i] > 0 || math.Abs(counts[i]/draws-p) > 5*math.Sqrt(p*(1-p)/draws)+1.0/draws {
				t.Errorf("%s: token %d drawn with frequency %.4f, want %.4f", c.name, i, counts[i]/draws, p)
			}
		}
	}
	var s sampler
	if d := s.draw(slices.Clone(logits), &policy.Request{}, 0, []int32{17}); d.token != 300 {
		t.Errorf("greedy without the best token: token %d, want 300", d.token)
	}
}

// TestMinTokens wants no end before the minimum and every end at it.
func TestMinTokens(t *testing.T) {
	m := loud(t, small(true), 67)
	r := policy.Request{Session: 1, Context: tokens(9, 1), MaxTokens: 60, Temperature: 1, Seed: 4}
	free := alone(t, m, r)
	text := ""
	for _, id := range free.Tokens {
		text += string(letters(0).TokenBytes(id))
	}
	for _, least := range []int{0, 1, 30, 60} {
		t.Run(fmt.Sprint(least), func(t *testing.T) {
			r := r
			r.MinTokens, r.StopTokens = least, []int32{free.Tokens[2], 99, -1}
			out := alone(t, m, r)
			for i, id := range out.Tokens {
				if last := i == len(out.Tokens)-1; (id == free.Tokens[2]) != (last && out.Stop == policy.StopEOS) || last && i+1 < least {
					t.Errorf("stop token %d: %v, stop %q", free.Tokens[2], out.Tokens, out.Stop)
				}
			}
			r = policy.Request{Session: 1, Context: r.Context, MaxTokens: 60, MinTokens: least, Stop: []string{text[3:6]}, Temperature: 1, Seed: 4}
			out = alone(t, m, r)
			if want := max(6, least); least <= 6 && len(out.Tokens) != want || len(out.Tokens) < least {
				t.Errorf("stop string after 6 tokens, minimum %d: %d tokens", least, len(out.Tokens))
			}
		})
	}
}

func FuzzStopStrings(f *testing.F) {
	f.Add("a<b></b>c", "</b>", "b>c", uint64(5))
	f.Add("aaaa", "aa", "", uint64(1))
	f.Fuzz(func(t *testing.T, text, one, two string, seed uint64) {
		s := newStopStrings([]string{one, two})
		random := rand.New(rand.NewPCG(seed, 1))
		for from := 0; from < len(text); {
			to := min(len(text), from+random.IntN(4))
			want := false
			for _, stop := range []string{one, two} {
				for end := from + 1; end <= to; end++ {
					want = want || stop != "" && len(stop) <= end && text[end-len(stop):end] == stop
				}
			}
			if got := s.add([]byte(text[from:to])); got != want {
				t.Fatalf("%q and %q in %q after %d..%d: %v, want %v", one, two, text, from, to, got, want)
			}
			from = to
		}
	})
}
