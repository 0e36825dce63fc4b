package wholefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	put := func(text string, failure error) error {
		return Write(path, func(f *os.File) error {
			_, err := f.WriteString(text)
			return errors.Join(err, failure)
		})
	}
	full := errors.New("the disk is full")
	check := func(want string) {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil || string(data) != want {
			t.Errorf("holds %q (%v), want %q", data, err, want)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Errorf("the folder holds %v (%v)", entries, err)
		}
	}
	if err := put("half", full); !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half a file is there: %v", err)
	}
	for _, text := range []string{"first", "second"} {
		if err := put(text, nil); err != nil {
			t.Fatal(err)
		}
		check(text)
	}
	if err := put("half", full); !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
	check("second")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestNoFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "absent", "file")
	if err := Write(path, func(*os.File) error { t.Error("called"); return nil }); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	t.Chdir(t.TempDir())
	if err := Write("bare", func(*os.File) error { return nil }); err != nil {
		t.Error(err)
	}
}
