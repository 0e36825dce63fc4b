package batch

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/compress"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"

	"github.com/forager-rl/forager"
)

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "00000001.arrow")
	for _, n := range []int{0, 3, 200} {
		want := episodes(1, n, 8)
		if err := WriteFile(path, want); err != nil {
			t.Fatal(err)
		}
		got, err := ReadFile(path)
		if err != nil || len(got) != n || n > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("%d groups: got %d, %v", n, len(got), err)
		}
	}
	// Arrow's own reader, which goes by the footer, finds the same rows.
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := ipc.NewFileReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	rows := int64(0)
	for i := range r.NumRecords() {
		rec, err := r.Record(i)
		if err != nil {
			t.Fatal(err)
		}
		rows += rec.NumRows()
	}
	if rows != 1600 {
		t.Errorf("%d rows by the footer, want 1600", rows)
	}
}

func TestFileDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.arrow")
	if _, err := ReadFile(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if err := WriteFile(path, episodes(1, 2, 2)); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(data); n += 1 + n/23 {
		if err := os.WriteFile(path, data[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadFile(path); !errors.Is(err, forager.ErrCorrupt) {
			t.Fatalf("%d of %d bytes: %v", n, len(data), err)
		}
	}
}

// TestFileNotWritten: what cannot be written leaves the old file and no other.
func TestFileNotWritten(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "r.arrow")
	want := episodes(1, 1, 2)
	if err := WriteFile(path, want); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, []forager.Group{{}}); err == nil {
		t.Fatal("an empty group was written")
	}
	if got, err := ReadFile(path); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("the old file is gone: %v", err)
	}
	if err := WriteFile(filepath.Join(folder, "absent", "r.arrow"), want); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent folder: %v", err)
	}
	if files, _ := os.ReadDir(folder); len(files) != 1 {
		t.Errorf("%d files are left, want 1", len(files))
	}
}

// TestReadParquet reads a row of the form that verl data sets have.
func TestReadParquet(t *testing.T) {
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.BinaryTypes.String},
		{Name: "hops", Type: arrow.PrimitiveTypes.Int32, Nullable: true},
		{Name: "score", Type: arrow.PrimitiveTypes.Float32, Nullable: true},
		{Name: "golden_answers", Type: arrow.ListOf(arrow.BinaryTypes.String), Nullable: true},
		{Name: "prompt", Type: arrow.ListOf(arrow.StructOf(
			arrow.Field{Name: "role", Type: arrow.BinaryTypes.String, Nullable: true},
			arrow.Field{Name: "content", Type: arrow.BinaryTypes.String, Nullable: true})), Nullable: true},
		{Name: "reward_model", Type: arrow.StructOf(
			arrow.Field{Name: "ground_truth", Type: arrow.StructOf(
				arrow.Field{Name: "target", Type: arrow.ListOf(arrow.BinaryTypes.String), Nullable: true}), Nullable: true},
			arrow.Field{Name: "style", Type: arrow.BinaryTypes.String, Nullable: true}), Nullable: true},
	}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	const rows = 700
	for i := range rows {
		row := fmt.Sprintf(`{"id": "q%d", "hops": 2, "score": 0.5, "golden_answers": ["Vientiane", "Viangchan"],
			"prompt": [{"role": "user", "content": "Which?"}],
			"reward_model": {"ground_truth": {"target": ["Vientiane"]}, "style": "rule"}}`, i)
		if i == 1 {
			row = `{"id": "q1", "hops": null, "score": null, "golden_answers": [], "prompt": null, "reward_model": null}`
		}
		if err := b.UnmarshalJSON([]byte(row)); err != nil {
			t.Fatal(err)
		}
	}
	rec := b.NewRecord()
	defer rec.Release()
	table := array.NewTableFromRecords(schema, []arrow.Record{rec})
	defer table.Release()
	path := filepath.Join(t.TempDir(), "train.parquet")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := pqarrow.WriteTable(table, f, 300, parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Snappy)), pqarrow.DefaultWriterProps()); err != nil {
		t.Fatal(err)
	}

	var got []map[string]any
	err = ReadParquet(path, func(n int, row map[string]any) error {
		if n != len(got) {
			t.Fatalf("row %d after %d", n, len(got))
		}
		got = append(got, row)
		return nil
	})
	if err != nil || len(got) != rows {
		t.Fatalf("%d rows, %v", len(got), err)
	}
	want := map[string]any{
		"id": "q699", "hops": int64(2), "score": 0.5, "golden_answers": []any{"Vientiane", "Viangchan"},
		"prompt":       []any{map[string]any{"role": "user", "content": "Which?"}},
		"reward_model": map[string]any{"ground_truth": map[string]any{"target": []any{"Vientiane"}}, "style": "rule"},
	}
	if !reflect.DeepEqual(got[699], want) {
		t.Errorf("got %#v", got[699])
	}
	want = map[string]any{"id": "q1", "hops": nil, "score": nil, "golden_answers": []any{}, "prompt": nil, "reward_model": nil}
	if !reflect.DeepEqual(got[1], want) {
		t.Errorf("got %#v", got[1])
	}

	stop := errors.New("stop")
	if err := ReadParquet(path, func(int, map[string]any) error { return stop }); err != stop { //nolint:errorlint // as it is
		t.Errorf("the error of the callback came back as %v", err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 3, len(data) / 2, len(data) - 1} {
		if err := os.WriteFile(path, data[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := ReadParquet(path, func(int, map[string]any) error { return nil }); !errors.Is(err, forager.ErrCorrupt) {
			t.Errorf("%d of %d bytes: %v", n, len(data), err)
		}
	}

	// Damage in a column of a struct, which Arrow would decode in a goroutine of
	// its own and panic there.
	damaged := slices.Clone(data)
	page := []byte("\x08\x1c\x04\x00\x00\x00user") // Snappy's form of the dictionary of roles: size, literal, text
	at := bytes.Index(damaged, page)
	if at < 0 {
		t.Fatal("the file has no such page")
	}
	copy(damaged[at:], []byte{0xff, 0xff})
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ReadParquet(path, func(int, map[string]any) error { return nil }); !errors.Is(err, forager.ErrCorrupt) {
		t.Errorf("damaged page: %v", err)
	}
}
