package batch

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/forager-rl/forager"
)

var someTime = time.Date(2026, 1, 2, 3, 4, 5, 678000, time.UTC)

func someDigests() []forager.TurnDigest {
	return []forager.TurnDigest{
		{Run: "laos", RolloutID: "laos-1", Turn: 0, TaskID: "t", Question: "Which?", Query: "capital", Answer: "Vientiane", Time: someTime,
			Observation: "Laos: its", Earlier: []string{"Laos", "cities"},
			Passages: []forager.Passage{{ID: "d1", Title: "Laos", Text: "Its capital is Vientiane.", Score: 3.5}, {ID: "d2"}}},
		{Run: "laos", RolloutID: "laos-2", Turn: 3, Time: someTime},
	}
}

func someAnnotations() []forager.Annotation {
	zero, half := 0.0, 0.5
	return []forager.Annotation{
		{RolloutID: "laos-1", Turn: 0, Source: "helpful", Value: &half, Key: "k", Judge: "rule", Rubric: "r1", Rationale: "found", Latency: time.Second, Time: someTime,
			Judgement: forager.Judgement{
				Model: "m", Endpoint: "http://localhost:1/v1", PromptDigest: "p", Answer: "LABEL: B", PromptTokens: 3, CompletionTokens: 2, TaskID: "t",
				Question: "Which?", Query: "capital", Observation: "Laos: its", OtherQuery: "river", OtherObservation: "Mekong",
			}},
		{RolloutID: "laos-1", Turn: forager.WholeRollout, Source: "helpful", Value: &zero, Time: someTime},
		{RolloutID: "laos-2", Turn: 1, Source: "helpful", Time: someTime}, // not labelled, which differs from 0
	}
}

func TestDigestsRoundTrip(t *testing.T) {
	want := someDigests()
	data, err := EncodeDigests(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeDigests(data)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if _, err := EncodeDigests([]forager.TurnDigest{{Run: "laos"}}); err == nil {
		t.Error("a digest without rollout id was encoded")
	}
}

func TestAnnotationsRoundTrip(t *testing.T) {
	want := someAnnotations()
	data, err := EncodeAnnotations(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeAnnotations(data)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v", got, err)
	}
}

// TestColumnsAreAdded reads a newer writer, who added columns on both levels and
// leaves optional ones out.
func TestColumnsAreAdded(t *testing.T) {
	groups := episodes(1, 2, 2)
	newer := rolloutTable
	newer.columns = slices.Clone(rolloutTable.columns)
	newer.columns = slices.DeleteFunc(newer.columns, func(c column[rolloutRow]) bool { return c.name == "answer" || c.name == "start" })
	turns := append([]column[forager.Turn]{signed("thinking", func(*forager.Turn) *int { n := 7; return &n })}, turnColumns...)
	for i, c := range newer.columns {
		if c.name == "turns" {
			newer.columns[i] = structs("turns", turns, func(r *rolloutRow) *[]forager.Turn { return &r.rollout.Turns })
		}
	}
	newer.columns = slices.Insert(newer.columns, 0, texts("tools", func(*rolloutRow) *[]string { return &[]string{"calculator"} }))

	data, err := newer.encode(memory.DefaultAllocator, rolloutRows(groups))
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeGroups(data)
	if err != nil {
		t.Fatal(err)
	}
	for g := range groups {
		for i := range groups[g].Rollouts {
			groups[g].Rollouts[i].Answer, groups[g].Rollouts[i].Start = "", time.Time{}
		}
	}
	if !reflect.DeepEqual(got, groups) {
		t.Fatalf("got %+v", got[0].Rollouts[0])
	}
}

func TestUnknownSchema(t *testing.T) {
	groups := episodes(1, 1, 1)
	for name, change := range map[string]func(*table[rolloutRow]){
		"other name":      func(tab *table[rolloutRow]) { tab.name = "trajectory" },
		"newer major":     func(tab *table[rolloutRow]) { tab.version = 2 },
		"required absent": func(tab *table[rolloutRow]) { tab.columns = tab.columns[1:] },
		"other type": func(tab *table[rolloutRow]) {
			tab.columns = slices.Clone(tab.columns)
			tab.columns[0] = signed("run", func(r *rolloutRow) *int { return &r.rollout.Sample })
		},
	} {
		tab := rolloutTable
		change(&tab)
		data, err := tab.encode(memory.DefaultAllocator, rolloutRows(groups))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeGroups(data); !errors.Is(err, forager.ErrSchema) || errors.Is(err, forager.ErrCorrupt) {
			t.Errorf("%s: got %v, want ErrSchema", name, err)
		}
	}
	digests, err := EncodeDigests(someDigests())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeGroups(digests); !errors.Is(err, forager.ErrSchema) {
		t.Errorf("digests as rollouts: got %v, want ErrSchema", err)
	}
}

// TestOverlappingOffsets: lists that all point to the same elements would let a
// small batch grow by the square of its size.
func TestOverlappingOffsets(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	defer mem.AssertSize(t, 0)
	type bag struct{ names []string }
	col := texts("names", func(b *bag) *[]string { return &b.names })
	b := array.NewListBuilder(mem, arrow.BinaryTypes.String)
	defer b.Release()
	b.ValueBuilder().(*array.StringBuilder).AppendValues([]string{"x", "y", "z"}, nil)
	b.AppendValues([]int32{0, 0, 0, 0}, []bool{true, true, true, true}) // [0,0) [0,0) [0,0) [0,3)
	fine := b.NewListArray()
	defer fine.Release()
	offsets := fine.Data().Buffers()[1].Bytes()
	for i := range 4 { // now every list ends at 3: [0,3) [3,3) [3,3) [3,3) becomes overlapping by going back
		copy(offsets[4*i:], []byte{0, 0, 0, 0})
	}
	copy(offsets[4:], []byte{3, 0, 0, 0}) // [0,3) [3,0) ...
	read, err := col.bind(fine)
	if err != nil {
		t.Fatal(err)
	}
	var got bag
	if err := read(0, &got); err != nil || len(got.names) != 3 {
		t.Fatalf("row 0: %v, %v", got, err)
	}
	if err := read(1, &got); err == nil {
		t.Error("row 1 goes backwards and was read")
	}
	if err := read(3, &got); err == nil || !strings.Contains(err.Error(), "overlap") {
		t.Errorf("row 3 reads the elements of row 0 again: %v", err)
	}
}

// TestHostileClaims: a schema whose vectors claim 2^31 entries must not be
// believed, because running out of memory cannot be recovered from.
func TestHostileClaims(t *testing.T) {
	valid, err := EncodeGroups(episodes(1, 1, 1))
	if err != nil {
		t.Fatal(err)
	}
	const prefix = 8 // continuation mark and length
	meta := flatBytes(valid[prefix:])
	schema := meta.follow(meta.slot(meta.follow(0), messageHeader))
	fields, _ := meta.vector(schema, schemaFields)
	metadata, _ := meta.vector(schema, schemaMetadata)
	children, _ := meta.vector(meta.follow(fields+4*20), fieldChildren) // of turns
	for what, at := range map[string]int{"fields": fields, "metadata": metadata, "children": children} {
		damaged := slices.Clone(valid)
		copy(damaged[prefix+at-4:], []byte{0xff, 0xff, 0xff, 0x7f})
		if _, err := DecodeGroups(damaged); !errors.Is(err, forager.ErrCorrupt) || !strings.Contains(err.Error(), "more than 1024") {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

// FuzzDecode: whatever the bytes, an answer or a sentinel, never a panic.
func FuzzDecode(f *testing.F) {
	groups, err := EncodeGroups(oddGroups(rand.New(rand.NewPCG(1, 2))))
	if err != nil {
		f.Fatal(err)
	}
	digests, err := EncodeDigests(someDigests())
	if err != nil {
		f.Fatal(err)
	}
	labels, err := EncodeAnnotations(someAnnotations())
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{groups, digests, labels, nil, []byte("ARROW1\x00\x00")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, err := range decodeAll(data) {
			if err != nil && !errors.Is(err, forager.ErrCorrupt) && !errors.Is(err, forager.ErrSchema) {
				t.Fatalf("neither corrupt nor unknown: %v", err)
			}
		}
	})
}

func decodeAll(data []byte) []error {
	_, err1 := DecodeGroups(data)
	_, err2 := DecodeDigests(data)
	_, err3 := DecodeAnnotations(data)
	return []error{err1, err2, err3}
}

// TestDamagedBytes is the part of FuzzDecode that runs every time: single bytes
// of a valid batch changed, heads of messages first.
func TestDamagedBytes(t *testing.T) {
	data, err := EncodeGroups(episodes(6, 1, 2))
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 3))
	for i := range 20_000 {
		damaged := slices.Clone(data)
		for range 1 + rng.IntN(3) {
			damaged[rng.IntN(min(len(data), 1+i))] = byte(rng.Uint32())
		}
		for _, err := range decodeAll(damaged) {
			if err != nil && !errors.Is(err, forager.ErrCorrupt) && !errors.Is(err, forager.ErrSchema) {
				t.Fatalf("neither corrupt nor unknown: %v", err)
			}
		}
	}
}
