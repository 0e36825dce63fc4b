package rewardmodel

import "math/rand/v2"

// reservoir keeps a bounded, uniform sample of all labels that came (Vitter
// 1985, algorithm R). A policy that changes leaves its old turns in the sample,
// which is meant: a reward model must not forget what it would be exploited on.
type reservoir struct {
	limit    int // most labels
	width    int // readings per label
	readings []reading
	labels   []float32
	seen     uint64 // labels that came
}

func (s *reservoir) add(rng *rand.Rand, label float32, readings []reading) {
	s.seen++
	if len(s.labels) < s.limit {
		s.labels = append(s.labels, label)
		s.readings = append(s.readings, readings...)
		return
	}
	if at := rng.Uint64N(s.seen); at < uint64(s.limit) {
		s.labels[at] = label
		copy(s.readings[int(at)*s.width:], readings)
	}
}

// draw picks one label.
func (s *reservoir) draw(rng *rand.Rand) ([]reading, float32) {
	at := rng.IntN(len(s.labels))
	return s.readings[at*s.width:][:s.width], s.labels[at]
}

// shrink leaves out labels at random until the limit holds.
func (s *reservoir) shrink(rng *rand.Rand) {
	for len(s.labels) > s.limit {
		at, last := rng.IntN(len(s.labels)), len(s.labels)-1
		s.labels[at] = s.labels[last]
		copy(s.readings[at*s.width:][:s.width], s.readings[last*s.width:])
		s.labels = s.labels[:last]
		s.readings = s.readings[:last*s.width]
	}
}
