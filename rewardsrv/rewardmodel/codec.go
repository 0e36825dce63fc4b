package rewardmodel

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/forager-rl/forager"
)

// An encoded object is
//
//	magic [8]byte | schema uint32 | what byte | measures 3 × uint32 | contents | SHA-256 of all before
//
// with little-endian numbers. Measures are those of features and network: bytes
// of another build of them are another schema.
const (
	magic  = "forgrrm\x00"
	schema = 1

	whatModel = 'm'
	whatState = 't'
)

var measures = [...]uint32{bucketBits, featCount, units}

// encoder appends numbers to bytes.
type encoder struct{ out []byte }

func newEncoder(what byte, size int) *encoder {
	e := &encoder{out: make([]byte, 0, size+128)}
	e.out = append(e.out, magic...)
	e.uint32(schema)
	e.byte(what)
	for _, m := range measures {
		e.uint32(m)
	}
	return e
}

// seal ends the object.
func (e *encoder) seal() []byte {
	sum := sha256.Sum256(e.out)
	return append(e.out, sum[:]...)
}

func (e *encoder) byte(v byte)       { e.out = append(e.out, v) }
func (e *encoder) uint16(v uint16)   { e.out = binary.LittleEndian.AppendUint16(e.out, v) }
func (e *encoder) uint32(v uint32)   { e.out = binary.LittleEndian.AppendUint32(e.out, v) }
func (e *encoder) uint64(v uint64)   { e.out = binary.LittleEndian.AppendUint64(e.out, v) }
func (e *encoder) float64(v float64) { e.uint64(math.Float64bits(v)) }

func (e *encoder) float32s(values ...float32) {
	for _, v := range values {
		e.uint32(math.Float32bits(v))
	}
}

func (e *encoder) uint16s(values []uint16) {
	for _, v := range values {
		e.uint16(v)
	}
}

// decoder takes numbers from bytes. After a failure it gives zeros; err tells.
type decoder struct {
	in  []byte
	err error
}

// newDecoder checks everything but the contents.
func newDecoder(data []byte, what byte) (*decoder, error) {
	body := len(data) - sha256.Size
	if !bytes.HasPrefix(data, []byte(magic)[:min(len(magic), len(data))]) {
		return nil, fmt.Errorf("these bytes are no reward model: %w", forager.ErrSchema)
	}
	if body < len(magic)+4 {
		return nil, fmt.Errorf("%d bytes are too few: %w", len(data), forager.ErrCorrupt)
	}
	if sum := sha256.Sum256(data[:body]); !bytes.Equal(sum[:], data[body:]) {
		return nil, fmt.Errorf("the digest does not match: %w", forager.ErrCorrupt)
	}
	d := &decoder{in: data[len(magic):body]}
	if v := d.uint32(); v != schema {
		return nil, fmt.Errorf("schema %d, this build reads %d: %w", v, schema, forager.ErrSchema)
	}
	if v := d.byte(); v != what {
		return nil, fmt.Errorf("object of type %q, want %q: %w", v, what, forager.ErrSchema)
	}
	for i, want := range measures {
		if v := d.uint32(); v != want && d.err == nil {
			return nil, fmt.Errorf("measure %d is %d, this build has %d: %w", i, v, want, forager.ErrSchema)
		}
	}
	return d, d.err
}

// end reports what went wrong, or that bytes are left over.
func (d *decoder) end() error {
	if d.err == nil && len(d.in) > 0 {
		d.fail("%d bytes are left over", len(d.in))
	}
	return d.err
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %w", fmt.Errorf(format, args...), forager.ErrCorrupt)
		d.in = nil
	}
}

// take gives the next n bytes, zeros when there are not that many. N is small.
func (d *decoder) take(n int) []byte {
	if len(d.in) < n {
		d.fail("the bytes end early")
		return make([]byte, n)
	}
	taken := d.in[:n]
	d.in = d.in[n:]
	return taken
}

func (d *decoder) byte() byte     { return d.take(1)[0] }
func (d *decoder) uint16() uint16 { return binary.LittleEndian.Uint16(d.take(2)) }
func (d *decoder) uint32() uint32 { return binary.LittleEndian.Uint32(d.take(4)) }
func (d *decoder) uint64() uint64 { return binary.LittleEndian.Uint64(d.take(8)) }

// bounded checks the number of things that follow.
func (d *decoder) bounded(v, most int) int {
	if v < 0 || v > most {
		d.fail("%d is more than %d", v, most)
		return 0
	}
	return v
}

func (d *decoder) float64() float64 {
	v := math.Float64frombits(d.uint64())
	if math.IsNaN(v) || math.IsInf(v, 0) {
		d.fail("a number is not finite")
		return 0
	}
	return v
}

func (d *decoder) float32s(out []float32) {
	for i := range out {
		out[i] = math.Float32frombits(d.uint32())
		if out[i]-out[i] != 0 { // NaN or infinite
			d.fail("a number is not finite")
		}
		if d.err != nil {
			return
		}
	}
}

// uint16s reads numbers below limit.
func (d *decoder) uint16s(out []uint16, limit int) {
	for i := range out {
		out[i] = d.uint16()
		if int(out[i]) >= limit {
			d.fail("%d is not below %d", out[i], limit)
			out[i] = 0
		}
	}
}
