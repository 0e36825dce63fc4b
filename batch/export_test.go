package batch

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/forager-rl/forager"
)

func TestAnnotationFiles(t *testing.T) {
	folder := t.TempDir()
	want := slices.Repeat(someAnnotations(), 700) // more than one record
	for _, f := range Formats() {
		if err := WriteAnnotations(filepath.Join(folder, "labels."+string(f)), f, want); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
	}

	got, err := ReadAnnotations(filepath.Join(folder, "labels.arrow"))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("Arrow: %+v, %v", got, err)
	}

	var rows []map[string]any
	err = ReadParquet(filepath.Join(folder, "labels.parquet"), func(_ int, row map[string]any) error {
		rows = append(rows, row)
		return nil
	})
	if err != nil || len(rows) != len(want) {
		t.Fatalf("Parquet: %d rows, %v", len(rows), err)
	}
	first := rows[0]
	if first["value"] != 0.5 || first["latency_ns"] != int64(time.Second) || first["model"] != "m" || first["query"] != "capital" ||
		!first["time"].(time.Time).Equal(someTime) || rows[1]["value"] != 0.0 || rows[2]["value"] != nil {
		t.Errorf("Parquet: %v", rows)
	}

	text, err := os.ReadFile(filepath.Join(folder, "labels.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != len(want) || !strings.Contains(lines[2], `"value":null`) || strings.Contains(string(text), "judgement") {
		t.Fatalf("JSONL:\n%s", text)
	}
	var label forager.Annotation
	var judgement forager.Judgement
	if err := errors.Join(json.Unmarshal([]byte(lines[0]), &label), json.Unmarshal([]byte(lines[0]), &judgement)); err != nil {
		t.Fatal(err)
	}
	if label.Judgement = judgement; !reflect.DeepEqual(label, want[0]) {
		t.Errorf("JSONL: %+v", label)
	}
}

// TestAnnotationFileNotWritten: an error leaves no file, and the old one as it was.
func TestAnnotationFileNotWritten(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "labels.arrow")
	if err := WriteAnnotations(path, Arrow, someAnnotations()); err != nil {
		t.Fatal(err)
	}
	if err := WriteAnnotations(path, "csv", someAnnotations()); err == nil || !strings.Contains(err.Error(), "want one of [arrow parquet jsonl]") {
		t.Errorf("unknown format: %v", err)
	}
	if err := WriteAnnotations(path, Parquet, []forager.Annotation{{Source: "helpful"}}); err == nil {
		t.Error("a label without rollout was written")
	}
	if got, err := ReadAnnotations(path); err != nil || len(got) != len(someAnnotations()) {
		t.Errorf("the old file is gone: %v", err)
	}
	if files, _ := os.ReadDir(folder); len(files) != 1 {
		t.Errorf("%d files are left, want 1", len(files))
	}
	if err := os.WriteFile(path, []byte("no Arrow"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadAnnotations(path); !errors.Is(err, forager.ErrCorrupt) {
		t.Errorf("a file of something else: %v", err)
	}
}
