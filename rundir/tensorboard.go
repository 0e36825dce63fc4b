package rundir

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// TensorBoard writes scalars to an event file. The format is TFRecord framing
// (length, masked CRC-32C, data, masked CRC-32C) around the protocol buffer
// Event of TensorFlow's event.proto, of which the few fields used are encoded
// here.
type TensorBoard struct {
	file *os.File
	now  func() time.Time
	size int64 // of the whole records
}

// OpenTensorBoard starts a new event file in the run directory. When the run
// resumes, the file begins with a session start at resumeStep+1, at which
// TensorBoard drops what earlier files have of later steps.
func (d *Dir) OpenTensorBoard(resume bool, resumeStep uint64, now func() time.Time) (*TensorBoard, error) {
	f, err := createEventFile(d.path, now())
	if err != nil {
		return nil, fmt.Errorf("open TensorBoard events: %w", err)
	}
	t := &TensorBoard{file: f, now: now}
	err = t.append(event{fileVersion: "brain.Event:2"})
	if err == nil && resume {
		err = t.append(event{step: resumeStep + 1, sessionStart: true})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open TensorBoard events: %w", err), f.Close())
	}
	return t, nil
}

// createEventFile finds a free name. Readers take files in the order of their
// names, which is the order of time, then of the number.
func createEventFile(dir string, now time.Time) (*os.File, error) {
	for n := range 1000 {
		name := fmt.Sprintf("events.out.tfevents.%010d.%03d.forager", now.Unix(), n)
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
	return nil, fmt.Errorf("1000 event files of the same second: %w", fs.ErrExist)
}

// Append writes the scalars of a step, as single-precision numbers. On an error
// the file is as it was.
func (t *TensorBoard) Append(step uint64, values map[string]float64) error {
	if err := t.append(event{step: step, scalars: values}); err != nil {
		return fmt.Errorf("append TensorBoard events of step %d: %w", step, err)
	}
	return nil
}

func (t *TensorBoard) append(e event) error {
	e.wallTime = float64(t.now().UnixNano()) / 1e9
	record := frame(e.encode())
	if _, err := t.file.Write(record); err != nil {
		err = errors.Join(err, t.file.Truncate(t.size))
		_, seekErr := t.file.Seek(t.size, io.SeekStart)
		return errors.Join(err, seekErr)
	}
	t.size += int64(len(record))
	return nil
}

// Close closes the file.
func (t *TensorBoard) Close() error {
	if err := t.file.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return fmt.Errorf("close TensorBoard events: %w", err)
	}
	return nil
}

// event is the part of TensorFlow's Event message that is used.
type event struct {
	wallTime     float64 // seconds since 1970
	step         uint64
	fileVersion  string // first record of a file
	sessionStart bool
	scalars      map[string]float64
}

// Field numbers and values of event.proto and summary.proto.
const (
	eventWallTime    = 1 // double
	eventStep        = 2 // int64
	eventFileVersion = 3 // string
	eventSummary     = 5 // Summary
	eventSessionLog  = 7 // SessionLog

	sessionLogStatus = 1 // enum
	sessionStart     = 1 // SessionLog.START

	summaryValue     = 1 // repeated Summary.Value
	valueTag         = 1 // string
	valueSimpleValue = 2 // float
)

// Wire types of protocol buffers.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

func (e event) encode() []byte {
	b := appendKey(nil, eventWallTime, wireFixed64)
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(e.wallTime))
	if e.step > 0 {
		b = binary.AppendUvarint(appendKey(b, eventStep, wireVarint), e.step)
	}
	if e.fileVersion != "" {
		b = appendBytes(b, eventFileVersion, []byte(e.fileVersion))
	}
	if e.sessionStart {
		b = appendBytes(b, eventSessionLog, binary.AppendUvarint(appendKey(nil, sessionLogStatus, wireVarint), sessionStart))
	}
	if len(e.scalars) > 0 {
		var summary []byte
		for _, tag := range slices.Sorted(maps.Keys(e.scalars)) {
			value := appendBytes(nil, valueTag, []byte(tag))
			value = appendKey(value, valueSimpleValue, wireFixed32)
			value = binary.LittleEndian.AppendUint32(value, math.Float32bits(float32(e.scalars[tag])))
			summary = appendBytes(summary, summaryValue, value)
		}
		b = appendBytes(b, eventSummary, summary)
	}
	return b
}

func appendKey(b []byte, field, wire uint64) []byte {
	return binary.AppendUvarint(b, field<<3|wire)
}

func appendBytes(b []byte, field uint64, data []byte) []byte {
	b = binary.AppendUvarint(appendKey(b, field, wireBytes), uint64(len(data)))
	return append(b, data...)
}

// frame puts a record into TFRecord framing.
func frame(data []byte) []byte {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, len(data)+16), uint64(len(data)))
	b = binary.LittleEndian.AppendUint32(b, maskedCRC(b))
	b = append(b, data...)
	return binary.LittleEndian.AppendUint32(b, maskedCRC(data))
}

// maskedCRC is TFRecord's checksum: CRC-32C, rotated right by 15 bits, plus a
// constant, so that the checksum of data that holds checksums stays useful.
func maskedCRC(data []byte) uint32 {
	c := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
	return (c>>15 | c<<17) + 0xa282ead8
}
