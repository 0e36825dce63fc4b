package replay

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/forager-rl/forager"
)

// A frame is a length, a CRC-32C of the payload, both little-endian uint32, and
// the payload. Segments and journal are files of frames.
const (
	frameHeader = 8
	maxFrame    = 256 << 20 // a longer length is damage
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frame is where a payload lies.
type frame struct {
	offset int64 // of the payload
	length int
	crc    uint32
}

func (f frame) end() int64 { return f.offset + int64(f.length) }

// appendFrame writes one frame at the end of the file with one write. When it
// fails the file is as long as before.
func appendFrame(f *os.File, end int64, payload ...[]byte) (frame, error) {
	buf := make([]byte, frameHeader, frameHeader+totalLen(payload))
	for _, part := range payload {
		buf = append(buf, part...)
	}
	at := frame{offset: end + frameHeader, length: len(buf) - frameHeader, crc: crc32.Checksum(buf[frameHeader:], castagnoli)}
	if at.length > maxFrame {
		return frame{}, fmt.Errorf("frame of %d bytes, at most %d are allowed", at.length, maxFrame)
	}
	binary.LittleEndian.PutUint32(buf, uint32(at.length))
	binary.LittleEndian.PutUint32(buf[4:], at.crc)
	if _, err := f.WriteAt(buf, end); err != nil {
		return frame{}, errors.Join(err, f.Truncate(end))
	}
	return at, nil
}

func totalLen(parts [][]byte) int {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	return n
}

// readFrame reads a payload back and checks it.
func readFrame(f *os.File, at frame) ([]byte, error) {
	payload := make([]byte, at.length)
	if _, err := f.ReadAt(payload, at.offset); err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", filepath.Base(f.Name()), forager.ErrCorrupt, err)
	}
	if crc32.Checksum(payload, castagnoli) != at.crc {
		return nil, fmt.Errorf("frame at %d of %s: %w", at.offset, filepath.Base(f.Name()), forager.ErrCorrupt)
	}
	return payload, nil
}

// scanFrames calls each for every whole frame. It gives the length of the file
// up to its last whole frame, and how many frames before that fail their CRC.
func scanFrames(f *os.File, each func(at frame, payload []byte) error) (end int64, damaged int, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	size := info.Size()
	in := bufio.NewReaderSize(io.NewSectionReader(f, 0, size), 1<<20)
	var header [frameHeader]byte
	pending := 0 // damaged frames not yet followed by a whole one
	for at := int64(0); at+frameHeader <= size; {
		if _, err := io.ReadFull(in, header[:]); err != nil {
			return end, damaged, err
		}
		next := frame{
			offset: at + frameHeader,
			length: int(binary.LittleEndian.Uint32(header[:])),
			crc:    binary.LittleEndian.Uint32(header[4:]),
		}
		if next.length > maxFrame || next.end() > size {
			break
		}
		payload := make([]byte, next.length)
		if _, err := io.ReadFull(in, payload); err != nil {
			return end, damaged, err
		}
		at = next.end()
		if next.length == 0 || crc32.Checksum(payload, castagnoli) != next.crc {
			pending++
			continue
		}
		damaged, pending = damaged+pending, 0
		end = at
		if err := each(next, payload); err != nil {
			return end, damaged, err
		}
	}
	return end, damaged, nil
}

// syncDir makes a created, renamed or removed directory entry durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
