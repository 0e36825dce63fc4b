package eval

import (
	"math"
	"math/rand/v2"
	"slices"
)

// estimator draws percentile bootstrap intervals (Efron 1979).
type estimator struct {
	config Config
	rng    *rand.Rand
}

// estimate gives the mean over strata of each stratum's mean over questions.
// One stratum is the plain mean. A resample draws as many questions from every
// stratum as it has, with replacement, so no stratum ever comes out empty.
func (e estimator) estimate(name string, strata ...[]vector) Group {
	g := Group{Name: name, Metrics: map[string]Estimate{}}
	known := [len(vector{})]int{}
	var whole mean
	for _, s := range strata {
		g.Questions += len(s)
		var stratum mean
		for _, v := range s {
			stratum.add(v)
			for m := range v {
				if !math.IsNaN(v[m]) {
					known[m]++
				}
			}
		}
		whole.add(stratum.value())
	}
	center := whole.value()

	draws := make([][]float64, len(center)) // by metric, one value a resample
	for range e.config.Resamples {
		var whole mean
		for _, s := range strata {
			var stratum mean
			for range s {
				stratum.add(s[e.rng.IntN(len(s))])
			}
			whole.add(stratum.value())
		}
		for m, x := range whole.value() {
			if !math.IsNaN(x) {
				draws[m] = append(draws[m], x)
			}
		}
	}

	tail := (1 - e.config.Confidence) / 2
	for m, metric := range Metrics() {
		if known[m] == 0 {
			continue
		}
		est := Estimate{Mean: center[m], Low: center[m], High: center[m], N: known[m]}
		if len(draws[m]) > 0 { // empty only if every resample missed the few known values
			slices.Sort(draws[m])
			est.Low, est.High = quantile(draws[m], tail), quantile(draws[m], 1-tail)
		}
		g.Metrics[metric] = est
	}
	return g
}

// mean averages vectors, metric by metric, over those that know the metric.
type mean struct {
	sum   vector
	count [len(vector{})]float64
}

func (a *mean) add(v vector) {
	for m, x := range v {
		if x == x { // not NaN
			a.sum[m] += x
			a.count[m]++
		}
	}
}

// value is NaN where no vector knew the metric.
func (a *mean) value() vector {
	v := a.sum
	for m := range v {
		v[m] /= a.count[m]
	}
	return v
}

// quantile interpolates linearly between order statistics (type 7 of Hyndman
// and Fan 1996). sorted is ascending and not empty; q lies in [0, 1].
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	low := int(at)
	if low+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}
