package audit

import (
	"cmp"
	"math"
	"slices"
	"strconv"
)

// Pair is what gold and a judge say of one thing.
type Pair struct {
	Gold, Judged float64
}

// Interval is a proportion with its 95 % confidence interval, all in [0, 1].
type Interval struct {
	Value float64 `json:"value"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

// Agreement is how well labels agree with gold.
type Agreement struct {
	N       int      `json:"n"`
	Classes []string `json:"classes"`
	Table   [][]int  `json:"table"` // Table[g][j]: gold says class g, the judge class j
	// Share of equal classes, with Wilson's interval.
	Share Interval `json:"agreement"`
	// Majority is the share of gold's most frequent class: the agreement of a
	// judge that always names it.
	Majority float64 `json:"majority"`
	// Kappa is nil where chance alone would agree always.
	Kappa *float64 `json:"kappa"`
	// AUC is nil where gold has no two sides.
	AUC *Interval `json:"auc"`
}

// normal95 is the quantile of the standard normal distribution that leaves
// 2.5 % above it.
const normal95 = 1.959963984540054

// mostClasses is how many values gold may have to be classes of their own.
const mostClasses = 6

// Agree compares labels with gold. Classes are the values of gold, if they are
// few and the judge gives no others; else they are the two sides of a threshold,
// the upper one with the threshold itself. The AUC compares the judge's values
// as they are, of turns whose gold is on either side. No pair gives the zero
// Agreement.
func Agree(pairs []Pair, threshold float64) Agreement {
	if len(pairs) == 0 {
		return Agreement{}
	}
	names, class := classes(pairs, threshold)
	a := Agreement{N: len(pairs), Classes: names, Table: make([][]int, len(names))}
	for i := range a.Table {
		a.Table[i] = make([]int, len(names))
	}
	var above, below []float64
	for _, p := range pairs {
		a.Table[class(p.Gold)][class(p.Judged)]++
		if p.Gold >= threshold {
			above = append(above, p.Judged)
		} else {
			below = append(below, p.Judged)
		}
	}
	same := 0
	for i, row := range a.Table {
		same += row[i]
		a.Majority = max(a.Majority, float64(sum(row))/float64(a.N))
	}
	a.Share = wilson(same, a.N)
	a.Kappa = kappa(a.Table)
	a.AUC = auc(above, below)
	return a
}

// classes gives the classes of values, ascending, and finds that of a value.
func classes(pairs []Pair, threshold float64) (names []string, class func(float64) int) {
	var values []float64
	for _, p := range pairs {
		values = append(values, p.Gold)
	}
	slices.Sort(values)
	values = slices.Compact(values)
	strange := slices.ContainsFunc(pairs, func(p Pair) bool { return !slices.Contains(values, p.Judged) })
	if len(values) > mostClasses || strange {
		bound := number(threshold)
		return []string{"< " + bound, "≥ " + bound}, func(v float64) int {
			if v >= threshold {
				return 1
			}
			return 0
		}
	}
	for _, v := range values {
		names = append(names, number(v))
	}
	return names, func(v float64) int { return slices.Index(values, v) }
}

// wilson is a proportion with the score interval of Wilson (1927), which, unlike
// the one around the estimate, keeps inside [0, 1] and holds for small n.
func wilson(successes, n int) Interval {
	p, m, z2 := float64(successes)/float64(n), float64(n), normal95*normal95
	center := (p + z2/(2*m)) / (1 + z2/m)
	half := normal95 / (1 + z2/m) * math.Sqrt(p*(1-p)/m+z2/(4*m*m))
	i := Interval{Value: p, Low: max(0, center-half), High: min(1, center+half)}
	switch successes { // exact, whatever rounding says
	case 0:
		i.Low = 0
	case n:
		i.High = 1
	}
	return i
}

// kappa is Cohen's (1960): (p₀ − pₑ) / (1 − pₑ) with the observed agreement p₀
// and the one pₑ of two judges who draw from the margins of the table.
func kappa(table [][]int) *float64 {
	n, same, chance := 0.0, 0.0, 0.0
	for i, row := range table {
		n += float64(sum(row))
		same += float64(row[i])
	}
	for i, row := range table {
		column := 0
		for _, r := range table {
			column += r[i]
		}
		chance += float64(sum(row)) / n * float64(column) / n
	}
	if chance >= 1 {
		return nil
	}
	k := (same/n - chance) / (1 - chance)
	return &k
}

// auc is the probability that a value of above exceeds one of below, ties
// counted half: the Mann–Whitney statistic over mid-ranks. Its interval has the
// standard error of Hanley and McNeil (1982).
func auc(above, below []float64) *Interval {
	if len(above) == 0 || len(below) == 0 {
		return nil
	}
	type value struct {
		x     float64
		above bool
	}
	var all []value
	for _, x := range above {
		all = append(all, value{x, true})
	}
	for _, x := range below {
		all = append(all, value{x, false})
	}
	slices.SortFunc(all, func(a, b value) int { return cmp.Compare(a.x, b.x) })
	ranks := 0.0 // of above
	for start := 0; start < len(all); {
		end := start
		for end < len(all) && all[end].x == all[start].x {
			end++
		}
		for _, v := range all[start:end] {
			if v.above {
				ranks += float64(start+1+end) / 2 // the mean of start+1 .. end
			}
		}
		start = end
	}
	m, n := float64(len(above)), float64(len(below))
	a := (ranks - m*(m+1)/2) / (m * n)
	q1, q2 := a/(2-a), 2*a*a/(1+a)
	half := normal95 * math.Sqrt((a*(1-a)+(m-1)*(q1-a*a)+(n-1)*(q2-a*a))/(m*n))
	return &Interval{Value: a, Low: max(0, a-half), High: min(1, a+half)}
}

func sum(row []int) int {
	total := 0
	for _, n := range row {
		total += n
	}
	return total
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
