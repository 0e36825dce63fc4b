package rewardmodel

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/forager-rl/forager"
)

// State is everything that the trainer knows, its optimiser and the labels to
// train on included, as bytes: 200 kB, and about 0.2 kB for each turn that is
// kept. A trainer restored from it goes on as this one would.
func (t *Trainer) State() []byte {
	e := newEncoder(whatState, 1<<18+400*len(t.examples.readings))
	e.kind(t.config.Kind)
	e.uint64(t.labels)
	e.uint64(t.foretold)
	e.float64(t.stats.Loss)
	e.float64(t.stats.Accuracy)
	e.moments(t.moments)
	random, err := t.source.MarshalBinary()
	if err != nil { // it has no way to fail
		random = nil
	}
	e.byte(byte(len(random)))
	e.out = append(e.out, random...)
	e.float32s(t.network...)
	e.uint64(t.adam.step)
	e.float32s(t.adam.mean...)
	e.float32s(t.adam.square...)
	e.float32s(t.weights[:]...)
	e.frequencies(t.frequencies)
	e.reservoir(&t.examples)
	return e.seal()
}

// Restore makes a trainer that goes on where State was called. The state must
// be of the same kind of model; other settings may have changed since. Errors
// are as for Decode.
func Restore(config Config, state []byte) (*Trainer, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	d, err := newDecoder(state, whatState)
	if err != nil {
		return nil, fmt.Errorf("restore reward model: %w", err)
	}
	if kind := d.kind(); kind != config.Kind && d.err == nil {
		return nil, forager.WithHint(fmt.Errorf("restore reward model: the state is of a %s model, want %s: %w", kind, config.Kind, forager.ErrSchema),
			"train anew from the labels")
	}
	t := newTrainer(config, &rand.PCG{})
	t.labels, t.foretold = d.uint64(), d.uint64()
	t.stats.Loss, t.stats.Accuracy = d.float64(), d.float64()
	t.moments = d.moments()
	if err := t.source.UnmarshalBinary(d.take(int(d.byte()))); err != nil {
		d.fail("random state: %v", err)
	}
	d.float32s(t.network)
	t.adam.step = d.uint64()
	d.float32s(t.adam.mean)
	d.float32s(t.adam.square)
	if slices.ContainsFunc(t.adam.square, func(v float32) bool { return v < 0 }) {
		d.fail("a mean of squares is negative")
	}
	d.float32s(t.weights[:])
	d.frequencies(t.frequencies)
	d.reservoir(&t.examples)
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("restore reward model: %w", err)
	}
	t.examples.shrink(t.rng)
	return t, nil
}

func (e *encoder) frequencies(f *frequencies) {
	e.uint32(f.documents)
	for _, n := range f.counts {
		e.uint32(n)
	}
	for _, word := range f.seen {
		e.uint64(word)
	}
}

func (d *decoder) frequencies(f *frequencies) {
	f.documents = d.uint32()
	for b := range f.counts {
		if f.counts[b] = d.uint32(); f.counts[b] > f.documents {
			d.fail("a word occurs in more documents than there are")
		}
	}
	for i := range f.seen {
		f.seen[i] = d.uint64()
	}
}

// maxStored bounds the labels of a reservoir.
const maxStored = 1 << 20

func (e *encoder) reservoir(s *reservoir) {
	e.uint64(s.seen)
	e.uint32(uint32(len(s.labels)))
	e.float32s(s.labels...)
	for i := range s.readings {
		e.reading(&s.readings[i])
	}
}

func (d *decoder) reservoir(s *reservoir) {
	s.seen = d.uint64()
	count := d.bounded(int(d.uint32()), min(maxStored, len(d.in)/(4+s.width*minReading)))
	if s.seen < uint64(count) {
		d.fail("%d labels are kept of %d", count, s.seen)
		return
	}
	s.labels = make([]float32, count)
	d.float32s(s.labels)
	for _, label := range s.labels {
		if label < 0 || label > 1 {
			d.fail("a label is out of range")
		}
	}
	s.readings = make([]reading, count*s.width)
	for i := range s.readings {
		d.reading(&s.readings[i])
		if d.err != nil {
			return
		}
	}
}

// minReading is the fewest bytes that a reading takes.
const minReading = 2*(1+2*8) + 2*8 + 1

func (e *encoder) reading(r *reading) {
	for _, p := range []*phrase{&r.question, &r.query} {
		e.byte(p.count)
		e.uint64(p.capitals)
		e.uint64(p.numbers)
		e.uint16s(p.buckets[:p.count])
	}
	e.uint64(r.asked)
	e.uint64(r.known)
	e.byte(r.count)
	for i := range r.passages[:r.count] {
		p := &r.passages[i]
		e.uint64(p.question)
		e.uint64(p.query)
		e.uint64(p.pairs)
		e.byte(p.titleCount)
		e.uint16s(p.title[:p.titleCount])
		e.uint16s([]uint16{p.titleQuestion, p.titleQuery, p.words, p.numbers})
	}
}

func (d *decoder) reading(r *reading) {
	for _, p := range []*phrase{&r.question, &r.query} {
		p.count = uint8(d.bounded(int(d.byte()), maxQuestion))
		p.capitals, p.numbers = d.uint64(), d.uint64()
		d.uint16s(p.buckets[:p.count], 1<<bucketBits)
	}
	r.asked, r.known = d.uint64(), d.uint64()
	r.count = uint8(d.bounded(int(d.byte()), maxPassages))
	for i := range r.passages[:r.count] {
		p := &r.passages[i]
		p.question, p.query, p.pairs = d.uint64(), d.uint64(), d.uint64()
		p.titleCount = uint8(d.bounded(int(d.byte()), maxTitleWords))
		d.uint16s(p.title[:p.titleCount], 1<<bucketBits)
		for _, v := range []*uint16{&p.titleQuestion, &p.titleQuery, &p.words, &p.numbers} {
			*v = d.uint16()
		}
	}
}
