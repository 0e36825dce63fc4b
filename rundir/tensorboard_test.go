package rundir

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

// readEvents decodes an event file by the definition of the format.
func readEvents(t *testing.T, path string) []event {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var events []event
	for len(data) > 0 {
		n := binary.LittleEndian.Uint64(data)
		if crc := binary.LittleEndian.Uint32(data[8:]); crc != maskedCRC(data[:8]) {
			t.Fatal("the length fails its checksum")
		}
		record := data[12 : 12+n]
		if crc := binary.LittleEndian.Uint32(data[12+n:]); crc != maskedCRC(record) {
			t.Fatal("a record fails its checksum")
		}
		data = data[16+n:]
		var e event
		fields(t, record, func(field, number uint64, bytes []byte) {
			switch field {
			case eventWallTime:
				e.wallTime = math.Float64frombits(number)
			case eventStep:
				e.step = number
			case eventFileVersion:
				e.fileVersion = string(bytes)
			case eventSessionLog:
				fields(t, bytes, func(field, number uint64, _ []byte) {
					e.sessionStart = field == sessionLogStatus && number == sessionStart
				})
			case eventSummary:
				e.scalars = map[string]float64{}
				fields(t, bytes, func(_, _ uint64, value []byte) {
					var tag string
					fields(t, value, func(field, number uint64, bytes []byte) {
						if field == valueTag {
							tag = string(bytes)
						} else {
							e.scalars[tag] = float64(math.Float32frombits(uint32(number)))
						}
					})
				})
			default:
				t.Fatalf("unknown field %d", field)
			}
		})
		events = append(events, e)
	}
	return events
}

// fields walks over the fields of a protocol buffer message.
func fields(t *testing.T, b []byte, visit func(field, number uint64, bytes []byte)) {
	t.Helper()
	varint := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			t.Fatal("bad varint")
		}
		b = b[n:]
		return v
	}
	for len(b) > 0 {
		key := varint()
		switch key & 7 {
		case wireVarint:
			visit(key>>3, varint(), nil)
		case wireFixed64:
			visit(key>>3, binary.LittleEndian.Uint64(b), nil)
			b = b[8:]
		case wireFixed32:
			visit(key>>3, uint64(binary.LittleEndian.Uint32(b)), nil)
			b = b[4:]
		case wireBytes:
			n := varint()
			visit(key>>3, 0, b[:n])
			b = b[n:]
		default:
			t.Fatalf("unknown wire type %d", key&7)
		}
	}
}

func TestTensorBoard(t *testing.T) {
	d := create(t)
	now := func() time.Time { return time.UnixMilli(1_800_000_000_500) }
	write := func(resume bool, resumeStep uint64, steps ...uint64) {
		t.Helper()
		tb, err := d.OpenTensorBoard(resume, resumeStep, now)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range steps {
			if err := tb.Append(s, map[string]float64{"train/reward": float64(s) / 4, "train/em": 0.5}); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if err := tb.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(false, 0, 0, 1, 300)
	write(true, 1, 2) // in the same second: the name still sorts behind
	files, err := filepath.Glob(filepath.Join(d.Path(), "events.out.tfevents.*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("got %v, %v", files, err)
	}
	const wall = 1_800_000_000.5
	scalars := func(step uint64) event {
		return event{wallTime: wall, step: step, scalars: map[string]float64{"train/reward": float64(step) / 4, "train/em": 0.5}}
	}
	head := event{wallTime: wall, fileVersion: "brain.Event:2"}
	if got, want := readEvents(t, files[0]), []event{head, scalars(0), scalars(1), scalars(300)}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	if got, want := readEvents(t, files[1]), []event{head, {wallTime: wall, step: 2, sessionStart: true}, scalars(2)}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

// TestMaskedCRC uses the check value of CRC-32C (RFC 3720, B.4): 0xe3069283.
func TestMaskedCRC(t *testing.T) {
	c := uint32(0xe3069283)
	if got, want := maskedCRC([]byte("123456789")), (c>>15|c<<17)+0xa282ead8; got != want {
		t.Errorf("got %s, want %s", fmt.Sprintf("%#x", got), fmt.Sprintf("%#x", want))
	}
}
