package rewardmodel

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestGradients compares backward with differences of the loss, for single turns
// and for pairs, with and without dropout.
func TestGradients(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	n := newNetwork(rng)
	for i := range n[atBias:] { // biases and the direct term as well
		n[atBias+i] += float32(rng.NormFloat64() * 0.3)
	}
	w := (&frequencies{}).weights()
	var d reader
	var a, b reading
	d.read(&a, invented(rng))
	d.read(&b, invented(rng))
	for _, c := range []struct {
		name    string
		pair    bool
		dropout float32
		label   float32
	}{
		{"helpful", false, 0, 1},
		{"not helpful, dropout", false, 0.3, 0},
		{"preferred", true, 0, 1},
		{"tie, dropout", true, 0.3, 0.5},
	} {
		var first, second activations
		loss := func() (float64, float32) {
			drop := rand.New(rand.NewPCG(6, 6)) // the same units each time
			logit := n.forward(&first, &a, w, c.dropout, drop)
			if c.pair {
				logit -= n.forward(&second, &b, w, c.dropout, drop)
			}
			loss, slope := logistic(logit, c.label)
			return float64(loss), slope
		}
		_, slope := loss()
		g := make(network, parameters)
		n.backward(g, &first, slope)
		if c.pair {
			n.backward(g, &second, -slope)
		}
		const h = 2e-3 // small, since a hidden unit that is cut off on the way has no slope
		checked := 0
		for i := range n {
			was := n[i]
			n[i] = was + h
			up, _ := loss()
			n[i] = was - h
			down, _ := loss()
			n[i] = was
			if want := (up - down) / (2 * h); math.Abs(want-float64(g[i])) > 1e-3*max(1, math.Abs(want)) {
				t.Errorf("%s: parameter %d has gradient %v, want %v", c.name, i, g[i], want)
			}
			if g[i] != 0 {
				checked++
			}
		}
		if checked < parameters/8 {
			t.Errorf("%s: only %d of %d gradients are not 0", c.name, checked, parameters)
		}
	}
}

func TestLogistic(t *testing.T) {
	for _, c := range []struct{ logit, label, loss, slope float64 }{
		{0, 1, math.Ln2, -0.5},
		{0, 0.5, math.Ln2, 0}, // a tie pulls nowhere when scores are equal
		{2, 0.5, -0.5*math.Log(1/(1+math.Exp(-2))) - 0.5*math.Log(1/(1+math.Exp(2))), 1/(1+math.Exp(-2)) - 0.5},
		{-1, 0, math.Log1p(math.Exp(-1)), 1 / (1 + math.E)},
		{200, 0, 200, 1}, // no overflow
		{-200, 1, 200, -1},
	} {
		loss, slope := logistic(float32(c.logit), float32(c.label))
		if math.Abs(float64(loss)-c.loss) > 1e-5*max(1, c.loss) || math.Abs(float64(slope)-c.slope) > 1e-6 {
			t.Errorf("logit %v, label %v: loss %v and slope %v, want %v and %v", c.logit, c.label, loss, slope, c.loss, c.slope)
		}
	}
}

// TestAdam checks two steps against the formulas by hand, the clip, and that a
// gradient that is not finite changes nothing.
func TestAdam(t *testing.T) {
	n, g, o := make(network, parameters), make(network, parameters), newAdam()
	g[0], g[1] = 0.4, -8 // a sum over 2 examples
	o.update(n, g, 2, 0.1, 100)
	if math.Abs(float64(n[0])+0.1) > 1e-6 || math.Abs(float64(n[1])-0.1) > 1e-6 {
		t.Errorf("first step to %v, %v; want the rate against the sign", n[0], n[1])
	}
	g[0], g[1] = 0, -8
	o.update(n, g, 2, 0.1, 100)
	mean := 0.9 * 0.02 / (1 - 0.9*0.9)
	square := 0.999 * 0.001 * 0.04 / (1 - 0.999*0.999)
	if want := -0.1 - 0.1*mean/math.Sqrt(square); math.Abs(float64(n[0])-want) > 1e-5 {
		t.Errorf("second step to %v, want %v", n[0], want)
	}
	clipped := newAdam()
	g[0], g[1] = 30, 40
	clipped.update(make(network, parameters), g, 1, 0.1, 10) // a norm of 50
	if math.Abs(float64(clipped.mean[0])-0.6) > 1e-6 || math.Abs(float64(clipped.mean[1])-0.8) > 1e-6 {
		t.Errorf("clipped gradients %v, %v; want 0.6 and 0.8", clipped.mean[0], clipped.mean[1])
	}
	before := n[0]
	g[5] = float32(math.NaN())
	o.update(n, g, 1, 0.1, 10)
	if n[0] != before || o.step != 2 {
		t.Error("a gradient that is not finite was used")
	}
}

func TestMoments(t *testing.T) {
	var m moments
	if m.normalise(3) != 0 {
		t.Error("a score without a spread is not 0")
	}
	m.add([]float32{1, 3})
	m.add([]float32{7, 9}) // the first two batches count alike
	if m.mean != 5 || m.variance != 10 {
		t.Errorf("mean %v and variance %v, want 5 and 10", m.mean, m.variance)
	}
	if got, want := m.normalise(8), 3/math.Sqrt(10); math.Abs(got-want) > 1e-12 {
		t.Errorf("normalised %v, want %v", got, want)
	}
	for range 200 { // what is long ago is forgotten
		m.add([]float32{-2, 2})
	}
	if math.Abs(m.mean) > 1e-6 || math.Abs(m.variance-4) > 1e-6 {
		t.Errorf("mean %v and variance %v after many batches, want 0 and 4", m.mean, m.variance)
	}
	m.add(nil)
}

func TestFrequencies(t *testing.T) {
	var f frequencies
	f.add("the cat", "the hat")
	f.add("the cat", "the hat") // seen before
	f.add("the dog")
	f.add("a", "b")
	at := func(word string) uint16 { return bucket(wordsOf(word)[0].hash) }
	if f.documents != 3 || f.counts[at("the")] != 2 || f.counts[at("hat")] != 1 {
		t.Errorf("%d documents, the %d, hat %d", f.documents, f.counts[at("the")], f.counts[at("hat")])
	}
	w := f.weights()
	for word, want := range map[string]float64{
		"the": math.Log(4.0/3) / math.Log(4), "hat": math.Log(2) / math.Log(4), "unseen": 1,
	} {
		if math.Abs(float64(w[at(word)])-want) > 1e-6 {
			t.Errorf("%s weighs %v, want %v", word, w[at(word)], want)
		}
	}
}
