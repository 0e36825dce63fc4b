package bus

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"reflect"
	"testing"

	"github.com/forager-rl/forager"
)

// reader opens a bus for reading and gives the texts of its annotations.
func reader(t *testing.T, change func(*Config)) ([]string, error) {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Run = "laos"
	change(&cfg)
	b, err := OpenReader(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var texts []string
	err = b.Replay(t.Context(), Annotations, 0, func(_ uint64, data []byte) error {
		texts = append(texts, string(data))
		return nil
	})
	return texts, err
}

// contents gives every file of a folder.
func contents(t *testing.T, folder string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS(folder), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(os.DirFS(folder), path)
		files[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestReader reads the same messages from a running server and from a copy of
// its store once it has ended, without a trace on either.
func TestReader(t *testing.T) {
	folder := t.TempDir()
	b := open(t, func(c *Config) { c.StoreDir = folder })
	var want []string
	for i := range 3 {
		want = append(want, fmt.Sprint("label ", i))
		publish(t, b, Annotations, "", want[i])
	}
	address, err := Address(folder)
	if err != nil || address != b.URL() {
		t.Fatalf("address %q, %v; want %q", address, err, b.URL())
	}
	if got, err := reader(t, func(c *Config) { c.URL = address }); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("running: %q, %v", got, err)
	}
	for range 2 { // the first look must not have made it
		if _, err := reader(t, func(c *Config) { c.URL, c.Run = address, "chad" }); !errors.Is(err, forager.ErrNotFound) {
			t.Errorf("another run: %v", err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	before, scratch := contents(t, folder), t.TempDir()
	if err := CopyStream(folder, "laos", Annotations, scratch); err != nil {
		t.Fatal(err)
	}
	if got, err := reader(t, func(c *Config) { c.StoreDir = scratch }); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("ended: %q, %v", got, err)
	}
	if !reflect.DeepEqual(contents(t, folder), before) {
		t.Error("reading changed the store")
	}
	if err := CopyStream(folder, "chad", Annotations, t.TempDir()); !errors.Is(err, forager.ErrNotFound) {
		t.Errorf("stream of another run: %v", err)
	}
	if _, err := Address(t.TempDir()); !errors.Is(err, forager.ErrNotFound) {
		t.Errorf("address of no server: %v", err)
	}
}
