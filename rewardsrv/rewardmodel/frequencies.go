package rewardmodel

import (
	"math"
	"math/bits"
)

// frequencies counts in how many documents each word occurred, documents being
// the questions and passages that were seen, each once.
type frequencies struct {
	counts    [1 << bucketBits]uint32
	documents uint32
	// seen has a bit for the hash of each document that was counted: a question
	// comes again with every turn and must not make its words look common.
	// Documents that share a bit are counted once, which costs a few of them.
	seen [1 << seenBits / 64]uint64

	last [1 << bucketBits]uint32 // document that a bucket was last counted for; not kept
}

const seenBits = 18

// add counts the words of one document, unless it was counted before.
func (f *frequencies) add(parts ...string) {
	hash := fnvOffset
	for _, part := range parts {
		for i := range len(part) {
			hash = (hash ^ uint32(part[i])) * fnvPrime
		}
		hash = (hash ^ 0xff) * fnvPrime // no byte of UTF-8
	}
	bit := hash * 2654435769 >> (32 - seenBits)
	if f.seen[bit/64]>>(bit%64)&1 != 0 || f.documents == math.MaxUint32 {
		return
	}
	f.seen[bit/64] |= 1 << (bit % 64)
	f.documents++
	for _, part := range parts {
		for {
			w, rest, ok := nextWord(part)
			if !ok {
				break
			}
			part = rest
			if b := bucket(w.hash); f.last[b] != f.documents {
				f.last[b] = f.documents
				f.counts[b]++
			}
		}
	}
}

// weights is the table of inverse document frequencies,
//
//	ln((N+1) / (n+1)) / ln(N+1)
//
// for a word in n of N documents: 1 for a word that was never seen, 0 for one
// that every document has, whatever N is, so that features keep their scale.
func (f *frequencies) weights() *weights {
	var w weights
	whole := math.Log(float64(f.documents) + 1)
	for b, n := range f.counts {
		w[b] = 1
		if n > 0 {
			w[b] = float32(1 - math.Log(float64(n)+1)/whole)
		}
	}
	return &w
}

// weights are inverse document frequencies by bucket, 0 to 1.
type weights [1 << bucketBits]float32

// of sums the weights of the words of a phrase that are in a set.
func (w *weights) of(p *phrase, set uint64) (sum float32) {
	for ; set != 0; set &= set - 1 {
		sum += w[p.buckets[bits.TrailingZeros64(set)]]
	}
	return sum
}

// most is the largest of these weights, 0 for an empty set.
func (w *weights) most(p *phrase, set uint64) (most float32) {
	for ; set != 0; set &= set - 1 {
		most = max(most, w[p.buckets[bits.TrailingZeros64(set)]])
	}
	return most
}

// example counts the question and each passage of an example.
func (f *frequencies) example(e Example) {
	f.add(cut(e.Question, maxObservation))
	eachPassage(cut(e.Observation, maxObservation), func(title, text string) { f.add(title, text) })
}
