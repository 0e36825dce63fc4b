package replay

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/forager-rl/forager"
)

// A group's place in its trace is kept with it, also over a restart, and comes
// with it over the wire. What is not traced costs no byte.
func TestTraceIsKept(t *testing.T) {
	dir := t.TempDir()
	table := open(t, dir, DefaultConfig())
	want := forager.Trace{Parent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", State: "a=b"}
	for key, at := range []forager.Trace{want, {}} {
		if _, _, err := table.insert(encode(t, small(uint64(key), 0)), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.Close(); err != nil {
		t.Fatal(err)
	}
	table = open(t, dir, DefaultConfig())
	table.mu.Lock()
	loan, err := table.lend(1, 1, everything)
	table.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	data, err := encodeResponse(response{}, loan)
	if err != nil {
		t.Fatal(err)
	}
	_, loan, err = decodeResponse(data)
	if err != nil {
		t.Fatal(err)
	}
	groups, err := loan.Groups()
	if err != nil || len(groups) != 2 {
		t.Fatal(groups, err)
	}
	if groups[0].Credit.Trace != want || groups[1].Credit.Trace != (forager.Trace{}) {
		t.Errorf("traces are %+v and %+v", groups[0].Credit.Trace, groups[1].Credit.Trace)
	}

	stored, err := json.Marshal(meta{Key: 1})
	if err != nil || strings.Contains(string(stored), "trace") {
		t.Errorf("metadata of an untraced group: %s, %v", stored, err)
	}
	if lots, err := json.Marshal(lotRef{Keys: []uint64{1}, Traces: traced([]forager.Trace{{}})}); err != nil || strings.Contains(string(lots), "traces") {
		t.Errorf("untraced lot: %s, %v", lots, err)
	}
}
