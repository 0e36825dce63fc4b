package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/forager-rl/forager"
)

// continuation precedes the length of every encapsulated message (Arrow
// columnar format, "Encapsulated message format").
const continuation = 0xFFFFFFFF

var errTruncated = errors.New("truncated")

// messages cuts an Arrow IPC stream in memory into messages. Unlike Arrow's own
// reader it copies nothing and believes no length that leads past the end.
type messages struct {
	data       []byte
	terminated bool // the stream ends with an end-of-stream mark, not with the data
	pos        int
}

// newMessages reads a stream: one that lacks its end-of-stream mark is
// truncated.
func newMessages(data []byte) *messages { return &messages{data: data, terminated: true} }

// budget is the memory that decoding may ask for: Arrow copies every buffer of a
// message once, into a block of a multiple of 64 bytes.
func (m *messages) budget() int { return 8*len(m.data) + 1<<16 }

// Retain and Release do nothing: the messages are views of data.
func (m *messages) Retain() {}

// Release does nothing.
func (m *messages) Release() {}

// Message gives the next message, or io.EOF at the end of the stream. It is
// valid as long as the data.
func (m *messages) Message() (*ipc.Message, error) {
	if !m.terminated && m.pos == len(m.data) {
		return nil, io.EOF
	}
	prefix, err := m.next(8)
	if err != nil {
		return nil, err
	}
	if binary.LittleEndian.Uint32(prefix) != continuation {
		return nil, errors.New("no message where one is expected")
	}
	size := int(int32(binary.LittleEndian.Uint32(prefix[4:])))
	if size == 0 {
		return nil, io.EOF
	}
	meta, err := m.next(size)
	if err != nil {
		return nil, err
	}
	if err := checkMessage(meta); err != nil {
		return nil, err
	}
	head := memory.NewBufferBytes(meta)
	bodySize := ipc.NewMessage(head, memory.NewBufferBytes(nil)).BodyLen()
	if bodySize < 0 || bodySize > int64(len(m.data)) {
		return nil, errTruncated
	}
	body, err := m.next(int(bodySize))
	if err != nil {
		return nil, err
	}
	return ipc.NewMessage(head, memory.NewBufferBytes(body)), nil
}

func (m *messages) next(n int) ([]byte, error) {
	if n < 0 || n > len(m.data)-m.pos {
		return nil, errTruncated
	}
	b := m.data[m.pos : m.pos+n : m.pos+n]
	m.pos += n
	return b, nil
}

// The head of a message is a FlatBuffers table. Arrow allocates one element per
// entry that a vector in it claims to have, before it looks at them, and
// FlatBuffers has no verifier in Go: a claim of 2^31 fields would end the process
// for want of memory, which no recover can catch. So the claims are counted
// first, and the parts of the format that batches do not use are refused:
// dictionaries, compression, and the types that bring counts of their own.
//
// Slots are those of Message.fbs and Schema.fbs of the Arrow format.
const (
	messageHeaderType, messageHeader = 1, 2
	schemaFields, schemaMetadata     = 1, 2
	fieldType, fieldDictionary       = 2, 4
	fieldChildren, fieldMetadata     = 5, 6
	recordCompression                = 3

	schemaHeader, recordHeader = 1, 3 // values of messageHeaderType

	maxSchema  = 64 << 10 // bytes; ours have about 4 KiB
	maxEntries = 1024     // fields of all levels and metadata entries; ours have about 50
	maxDepth   = 32
)

// plainTypes says which of the types of Schema.fbs a column may have: all but
// unions (14), run ends (22) and views (23 to 26).
var plainTypes = [...]bool{
	1: true, 2: true, 3: true, 4: true, 5: true, 6: true, // null, int, float, binary, utf8, bool
	7: true, 8: true, 9: true, 10: true, 11: true, // decimal, date, time, timestamp, interval
	12: true, 13: true, 15: true, 16: true, 17: true, // list, struct, fixed-size binary and list, map
	18: true, 19: true, 20: true, 21: true, // duration, large binary, utf8 and list
}

// checkMessage reports what Arrow should not be asked to read. It panics where
// an offset leads outside the message; decode recovers.
func checkMessage(meta []byte) error {
	b := flatBytes(meta)
	message := b.follow(0)
	kind, at := b.slot(message, messageHeaderType), b.slot(message, messageHeader)
	if kind == 0 || at == 0 {
		return errors.New("message without header")
	}
	header := b.follow(at)
	switch b[kind] {
	case schemaHeader:
		if len(meta) > maxSchema {
			return fmt.Errorf("schema of %d bytes, at most %d", len(meta), maxSchema)
		}
		entries := 0
		if err := b.count(header, schemaMetadata, &entries); err != nil {
			return err
		}
		return b.checkFields(header, schemaFields, &entries, 0)
	case recordHeader:
		if b.slot(header, recordCompression) != 0 {
			return fmt.Errorf("compressed record: %w", forager.ErrSchema)
		}
		return nil
	default:
		return fmt.Errorf("message of type %d: %w", b[kind], forager.ErrSchema)
	}
}

// flatBytes reads FlatBuffers: tables that name the place of their slots in a
// vtable, and offsets relative to where they stand.
type flatBytes []byte

func (b flatBytes) u32(at int) int { return int(binary.LittleEndian.Uint32(b[at:])) }

// follow gives the position that the offset at a position leads to.
func (b flatBytes) follow(at int) int { return at + b.u32(at) }

// slot gives the position of a slot of a table, or 0 when it is absent.
func (b flatBytes) slot(table, slot int) int {
	vtable := table - int(int32(b.u32(table)))
	entry := 4 + 2*slot
	if entry >= int(binary.LittleEndian.Uint16(b[vtable:])) {
		return 0
	}
	if off := int(binary.LittleEndian.Uint16(b[vtable+entry:])); off != 0 {
		return table + off
	}
	return 0
}

// vector gives the position of the first element and the length of a vector of
// offsets, 0 and 0 when it is absent.
func (b flatBytes) vector(table, slot int) (first, n int) {
	at := b.slot(table, slot)
	if at == 0 {
		return 0, 0
	}
	start := b.follow(at)
	return start + 4, b.u32(start)
}

// count adds the length of a vector to entries and refuses too many.
func (b flatBytes) count(table, slot int, entries *int) error {
	_, n := b.vector(table, slot)
	if *entries += n; *entries > maxEntries {
		return fmt.Errorf("schema of more than %d fields and metadata entries", maxEntries)
	}
	return nil
}

// checkFields walks the fields in a vector and their children.
func (b flatBytes) checkFields(table, slot int, entries *int, depth int) error {
	if err := b.count(table, slot, entries); err != nil {
		return err
	}
	if depth > maxDepth {
		return fmt.Errorf("schema of more than %d levels", maxDepth)
	}
	first, n := b.vector(table, slot)
	for i := range n {
		field := b.follow(first + 4*i)
		kind := b.slot(field, fieldType)
		if kind == 0 || int(b[kind]) >= len(plainTypes) || !plainTypes[b[kind]] || b.slot(field, fieldDictionary) != 0 {
			return fmt.Errorf("a column is of a type that batches do not have: %w", forager.ErrSchema)
		}
		if err := b.count(field, fieldMetadata, entries); err != nil {
			return err
		}
		if err := b.checkFields(field, fieldChildren, entries, depth+1); err != nil {
			return err
		}
	}
	return nil
}
