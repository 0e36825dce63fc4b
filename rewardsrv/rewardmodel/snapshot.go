package rewardmodel

import (
	"fmt"

	"github.com/forager-rl/forager"
)

// Encode gives the model as bytes, about 80 kB; equal models give equal bytes.
func (m *Model) Encode() []byte {
	e := newEncoder(whatModel, 4*(len(m.network)+len(m.weights)))
	e.kind(m.kind)
	e.float64(m.threshold)
	e.float64(m.epsilon)
	e.uint64(m.version)
	e.uint64(m.labels)
	e.moments(m.moments)
	e.float32s(m.weights[:]...)
	e.float32s(m.network...)
	return e.seal()
}

// Decode reads what Encode wrote. Bytes that are damaged give an error that wraps
// forager.ErrCorrupt, those of another schema or of something else one that wraps
// forager.ErrSchema.
func Decode(data []byte) (*Model, error) {
	d, err := newDecoder(data, whatModel)
	if err != nil {
		return nil, fmt.Errorf("decode reward model: %w", err)
	}
	m := &Model{
		kind: d.kind(), threshold: d.float64(), epsilon: d.float64(),
		version: d.uint64(), labels: d.uint64(), moments: d.moments(),
		weights: &weights{}, network: make(network, parameters),
	}
	d.float32s(m.weights[:])
	d.float32s(m.network)
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("decode reward model: %w", err)
	}
	return m, nil
}

func (e *encoder) kind(k Kind) {
	code := byte(0)
	if k == Ranking {
		code = 1
	}
	e.byte(code)
}

func (d *decoder) kind() Kind {
	switch code := d.byte(); code {
	case 0:
		return Classification
	case 1:
		return Ranking
	default:
		d.err = fmt.Errorf("kind %d of reward models: %w", code, forager.ErrSchema)
		d.in = nil
		return ""
	}
}

func (e *encoder) moments(m moments) {
	e.float64(m.mean)
	e.float64(m.variance)
	e.uint64(m.count)
}

func (d *decoder) moments() moments {
	m := moments{mean: d.float64(), variance: d.float64(), count: d.uint64()}
	if m.variance < 0 {
		d.fail("a variance is negative")
	}
	return m
}
