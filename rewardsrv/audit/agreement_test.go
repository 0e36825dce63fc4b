package audit

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
)

func near(a, b float64) bool { return math.Abs(a-b) < 5e-5 }

// repeat gives n equal pairs.
func repeat(n int, gold, judged float64) []Pair {
	pairs := make([]Pair, n)
	for i := range pairs {
		pairs[i] = Pair{gold, judged}
	}
	return pairs
}

func join(parts ...[]Pair) []Pair {
	var all []Pair
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// The intervals of Newcombe (1998), table I, method 3.
func TestWilson(t *testing.T) {
	for _, c := range []struct {
		successes, n int
		low, high    float64
	}{{81, 263, 0.2553, 0.3662}, {15, 148, 0.0624, 0.1605}, {0, 20, 0, 0.1611}, {1, 29, 0.0061, 0.1718}, {20, 20, 0.8389, 1}} {
		got := wilson(c.successes, c.n)
		if !near(got.Low, c.low) || !near(got.High, c.high) {
			t.Errorf("%d of %d: %+v, want [%v, %v]", c.successes, c.n, got, c.low, c.high)
		}
	}
}

// The example of grant proposals: 20 and 15 equal answers of 50 give p₀ = 0.7,
// pₑ = 0.5 and kappa 0.4.
func TestAgree(t *testing.T) {
	a := Agree(join(repeat(20, 1, 1), repeat(5, 1, 0), repeat(10, 0, 1), repeat(15, 0, 0)), 0.5)
	if a.N != 50 || !reflect.DeepEqual(a.Table, [][]int{{15, 10}, {5, 20}}) || !reflect.DeepEqual(a.Classes, []string{"0", "1"}) {
		t.Errorf("%+v", a)
	}
	if !near(a.Share.Value, 0.7) || !near(a.Majority, 0.5) || a.Kappa == nil || !near(*a.Kappa, 0.4) {
		t.Errorf("%+v, kappa %v", a, a.Kappa)
	}
	// Of two classes on both sides the AUC is the mean of both rates.
	if a.AUC == nil || !near(a.AUC.Value, (20.0/25+15.0/25)/2) {
		t.Errorf("AUC %+v", a.AUC)
	}
}

func TestClasses(t *testing.T) {
	three := Agree([]Pair{{0, 0}, {0.5, 1}, {1, 1}, {0.5, 0.5}}, 0.5)
	if !reflect.DeepEqual(three.Table, [][]int{{1, 0, 0}, {0, 1, 1}, {0, 0, 1}}) {
		t.Errorf("three values: %+v", three)
	}
	cut := Agree([]Pair{{0, 0.25}, {1, 0.75}, {1, 0.5}, {0, 0.5}}, 0.5) // gold knows no such values
	if !reflect.DeepEqual(cut.Table, [][]int{{1, 1}, {0, 2}}) || !reflect.DeepEqual(cut.Classes, []string{"< 0.5", "≥ 0.5"}) || !near(cut.AUC.Value, 3.5/4) {
		t.Errorf("a threshold: %+v", cut)
	}
}

// Nothing to compare is nil, not 0 and not NaN.
func TestAgreeDegenerate(t *testing.T) {
	if a := Agree(nil, 0.5); a.N != 0 || a.Kappa != nil || a.AUC != nil {
		t.Errorf("no pair: %+v", a)
	}
	if a := Agree(repeat(3, 1, 1), 0.5); a.Kappa != nil || a.AUC != nil || a.Share.Value != 1 {
		t.Errorf("one class: %+v", a)
	}
}

// TestAUC compares with the definition, pair by pair, and its interval with the
// example of Hanley and McNeil (1982), table II: 58 normal and 51 abnormal
// images, area 0.893, standard error 0.032.
func TestAUC(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		draw := func(n int) []float64 {
			values := make([]float64, n)
			for i := range values {
				values[i] = float64(rng.IntN(5)) // many ties
			}
			return values
		}
		above, below := draw(1+rng.IntN(9)), draw(1+rng.IntN(9))
		want := 0.0
		for _, a := range above {
			for _, b := range below {
				switch {
				case a > b:
					want++
				case a == b:
					want += 0.5
				}
			}
		}
		want /= float64(len(above) * len(below))
		if got := auc(above, below); math.Abs(got.Value-want) > 1e-12 || !(got.Low <= got.Value && got.Value <= got.High) {
			t.Fatalf("%v over %v: %+v, want %v", above, below, got, want)
		}
	}
	var normal, abnormal []float64
	for rating, counts := range [][2]int{{33, 3}, {6, 2}, {6, 2}, {11, 11}, {2, 33}} {
		for range counts[0] {
			normal = append(normal, float64(rating))
		}
		for range counts[1] {
			abnormal = append(abnormal, float64(rating))
		}
	}
	got := auc(abnormal, normal)
	if math.Abs(got.Value-0.893) > 5e-4 || math.Abs((got.Value-got.Low)/normal95-0.032) > 1e-3 {
		t.Errorf("Hanley and McNeil: %+v", got)
	}
}
