package replay

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/batch"
)

// The operations of a Service.
const (
	opBegin  = "begin"
	opSample = "sample"
	opCommit = "commit"
	opStats  = "stats"
)

// request is what a Client sends, as JSON.
type request struct {
	Op       string        `json:"op"`
	Epoch    uint64        `json:"epoch"`
	Sequence uint64        `json:"sequence,omitempty"` // sample
	Query    Query         `json:"query,omitzero"`     // sample
	Wait     time.Duration `json:"wait,omitempty"`     // sample
	From     uint64        `json:"from,omitempty"`     // begin
	Keys     []uint64      `json:"keys,omitempty"`     // commit
	Used     []byte        `json:"used,omitempty"`     // commit: encoded annotations of all its groups; none: not known
}

// response is what a Service answers: this as JSON behind its length (uint32,
// little-endian), then the batches of the lots and the encoded labels as they
// are, with no copy of a token changed on the way.
type response struct {
	Error string   `json:"error,omitempty"`
	Code  string   `json:"code,omitempty"` // of a sentinel error
	Lots  []lotRef `json:"lots,omitempty"`
	// LabelBytes is the length of the encoded annotations at the end.
	LabelBytes int      `json:"label_bytes,omitempty"`
	Drops      []Drop   `json:"drops,omitempty"`
	Held       []uint64 `json:"held,omitempty"`
	Gone       keyset   `json:"gone,omitempty"`
	Stats      *Stats   `json:"stats,omitempty"`
}

type lotRef struct {
	Bytes  int             `json:"bytes"`
	Keys   []uint64        `json:"keys"`
	Traces []forager.Trace `json:"traces,omitempty"` // one for each key; none when nothing is traced
}

// codes are the sentinel errors that keep their identity across the wire.
var codes = map[string]error{
	"fenced":  forager.ErrFenced,
	"schema":  forager.ErrSchema,
	"corrupt": forager.ErrCorrupt,
	"closed":  ErrClosed,
}

func failure(err error) response {
	r := response{Error: err.Error()}
	for code, sentinel := range codes {
		if errors.Is(err, sentinel) {
			r.Code = code
		}
	}
	return r
}

// err is the error that the service answered with, or nil.
func (r *response) err() error {
	if r.Error == "" {
		return nil
	}
	if sentinel := codes[r.Code]; sentinel != nil {
		return fmt.Errorf("replay service: %s (%w)", r.Error, sentinel)
	}
	return fmt.Errorf("replay service: %s", r.Error)
}

// encodeResponse writes a response with the lots and labels of a loan.
func encodeResponse(r response, loan Loan) ([]byte, error) {
	var labels []byte
	if len(loan.Labels) > 0 {
		var err error
		if labels, err = batch.EncodeAnnotations(loan.Labels); err != nil {
			return nil, fmt.Errorf("encode labels: %w", err)
		}
	}
	size := len(labels)
	for _, lot := range loan.Lots {
		r.Lots = append(r.Lots, lotRef{len(lot.Raw), lot.Keys, traced(lot.Traces)})
		size += len(lot.Raw)
	}
	r.Drops, r.LabelBytes = loan.Drops, len(labels)
	header, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode response: %w", err)
	}
	out := make([]byte, 0, 4+len(header)+size)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(header)))
	out = append(out, header...)
	for _, lot := range loan.Lots {
		out = append(out, lot.Raw...)
	}
	return append(out, labels...), nil
}

// decodeResponse reads what encodeResponse wrote; the lots alias data.
func decodeResponse(data []byte) (r response, loan Loan, err error) {
	broken := func(what string) error { return fmt.Errorf("replay response: %w: %s", forager.ErrCorrupt, what) }
	if len(data) < 4 {
		return r, loan, broken("too short")
	}
	length := int64(binary.LittleEndian.Uint32(data))
	data = data[4:]
	if length > int64(len(data)) {
		return r, loan, broken("header is cut off")
	}
	if err := json.Unmarshal(data[:length], &r); err != nil {
		return r, loan, broken(err.Error())
	}
	data = data[length:]
	for _, ref := range r.Lots {
		if ref.Bytes < 0 || ref.Bytes > len(data) {
			return r, loan, broken("batch is cut off")
		}
		loan.Lots = append(loan.Lots, Lot{Raw: data[:ref.Bytes], Keys: ref.Keys, Traces: ref.Traces})
		data = data[ref.Bytes:]
	}
	if r.LabelBytes != len(data) {
		return r, loan, broken("labels are cut off")
	}
	loan.Drops = r.Drops
	if len(data) > 0 {
		if loan.Labels, err = batch.DecodeAnnotations(data); err != nil {
			return r, loan, fmt.Errorf("replay response: labels: %w", err)
		}
	}
	return r, loan, nil
}
