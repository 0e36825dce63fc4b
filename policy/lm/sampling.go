package lm

import (
	"bytes"
	"math"
	"slices"

	"github.com/forager-rl/forager/policy"
	"github.com/forager-rl/forager/policy/lm/kernel"
)

// sampler draws tokens. It keeps memory between draws and has one user at a
// time.
type sampler struct {
	weights []float32 // exp(logit - greatest logit)
	sums    []float64 // of blocks of weights
	counts  [buckets]int32
	masses  [buckets]float64
	edge    []float32
}

// weightBlock is the number of weights that are summed together, so that a draw
// looks at few of them one by one.
const weightBlock = 256

// draw samples a token from logits, which it overwrites. Its log-probability is
// that of the tempered distribution; TopK, TopP and excluded tokens restrict the
// choice only. The draw depends on the request's seed and the position alone.
func (s *sampler) draw(logits []float32, req *policy.Request, position int, excluded []int32) draw {
	greedy := req.Temperature <= 0
	if !greedy && req.Temperature != 1 {
		kernel.Scale(1/req.Temperature, logits)
	}
	most := kernel.Max(logits)
	s.weights = grow(s.weights, len(logits))
	s.sums = s.sums[:0]
	total := 0.0
	for from := 0; from < len(logits); from += weightBlock {
		to := min(from+weightBlock, len(logits))
		sum := float64(kernel.ExpShiftSum(s.weights[from:to], logits[from:to], most))
		s.sums = append(s.sums, sum)
		total += sum
	}
	for _, id := range excluded {
		logits[id], s.weights[id] = float32(math.Inf(-1)), 0
	}
	id, mass := 0, total
	if len(excluded) > 0 {
		mass = s.addUp()
	}
	if greedy {
		id = max(kernel.ArgMax(logits), 0)
	} else {
		topP := float64(req.TopP)
		if topP >= 1 {
			topP = 0
		}
		if topP > 0 || req.TopK > 0 && req.TopK < len(logits) {
			s.restrict(req.TopK, topP*mass)
			mass = s.addUp()
		}
		id = s.pick(uniform(req.Seed, position) * mass)
	}
	return draw{int32(id), float32(float64(logits[id]-most) - math.Log(total))}
}

// addUp sums the blocks of weights again, and all.
func (s *sampler) addUp() float64 {
	total := 0.0
	for b := range s.sums {
		sum := 0.0
		for _, w := range s.weights[b*weightBlock : min((b+1)*weightBlock, len(s.weights))] {
			sum += float64(w)
		}
		s.sums[b] = sum
		total += sum
	}
	return total
}

// pick walks the weights until their sum exceeds target and returns the index
// of the one it reached, which never has weight 0.
func (s *sampler) pick(target float64) int {
	block, before, total := 0, 0.0, 0.0
	for b, sum := range s.sums {
		if sum > 0 {
			block, before = b, total
		}
		if total += sum; total > target {
			break
		}
	}
	first := block * weightBlock
	last := first
	for i, w := range s.weights[first:min(first+weightBlock, len(s.weights))] {
		if w == 0 {
			continue
		}
		last = first + i
		if before += float64(w); before > target {
			break
		}
	}
	return last
}

// buckets is the number of classes of weights that restrict makes by exponent
// and three bits of mantissa; heavier weights are in higher buckets.
const (
	buckets     = 1 << (32 - bucketShift)
	bucketShift = 20
)

// restrict keeps the most k probable tokens (all if k is 0), and of these the
// fewest whose weights reach mass (none is left out if mass is 0): top-k and
// nucleus sampling (Holtzman et al. 2020, arXiv 1904.09751). Weights of the
// others become 0. Of equal weights those of lower ids are kept.
func (s *sampler) restrict(k int, mass float64) {
	if k <= 0 {
		k = len(s.weights)
	}
	if mass <= 0 {
		mass = math.Inf(1)
	}
	clear(s.counts[:])
	clear(s.masses[:])
	for _, w := range s.weights {
		b := math.Float32bits(w) >> bucketShift
		s.counts[b]++
		s.masses[b] += float64(w)
	}
	// The bucket in which the limit is reached, and what is above it.
	b, kept := buckets-1, 0.0
	for ; b > 0 && int(s.counts[b]) < k && kept+s.masses[b] < mass; b-- {
		k -= int(s.counts[b])
		kept += s.masses[b]
	}
	s.edge = s.edge[:0]
	for _, w := range s.weights {
		if math.Float32bits(w)>>bucketShift == uint32(b) {
			s.edge = append(s.edge, w)
		}
	}
	slices.Sort(s.edge)
	slices.Reverse(s.edge)
	var least float32
	equal := 0 // of the least that are kept
	for _, w := range s.edge[:min(k, len(s.edge))] {
		if w != least {
			least, equal = w, 0
		}
		equal++
		if kept += float64(w); kept >= mass {
			break
		}
	}
	for i, w := range s.weights {
		switch {
		case w > least:
		case w == least && equal > 0:
			equal--
		default:
			s.weights[i] = 0
		}
	}
}

// uniform is a draw from [0, 1) fixed by seed and position (SplitMix64, Steele
// et al. 2014).
func uniform(seed uint64, position int) float64 {
	z := seed + (uint64(position)+1)*0x9e3779b97f4a7c15
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	z ^= z >> 31
	return float64(z>>11) / (1 << 53)
}

// stopStrings looks for strings in a text that grows token by token.
type stopStrings struct {
	list [][]byte
	most int    // bytes of the longest
	tail []byte // the last bytes, in which a string may have begun
}

func newStopStrings(list []string) stopStrings {
	var s stopStrings
	for _, stop := range list {
		if stop != "" {
			s.list = append(s.list, []byte(stop))
			s.most = max(s.most, len(stop))
		}
	}
	return s
}

// add appends a token's bytes and reports whether a string ends in them.
func (s *stopStrings) add(token []byte) bool {
	if s.list == nil {
		return false
	}
	before := len(s.tail)
	s.tail = append(s.tail, token...)
	found := slices.ContainsFunc(s.list, func(stop []byte) bool {
		return bytes.Contains(s.tail[max(0, before-len(stop)+1):], stop)
	})
	keep := min(len(s.tail), s.most-1)
	s.tail = s.tail[:copy(s.tail, s.tail[len(s.tail)-keep:])]
	return found
}
