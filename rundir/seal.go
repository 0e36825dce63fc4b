package rundir

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/internal/wholefile"
)

// sealFile is the file inside a checkpoint that makes it complete: it lists all
// others. It is written last.
const sealFile = "complete.json"

const sealSchema = 1

// sealed is the content of the seal file.
type sealed struct {
	Schema int          `json:"schema"`
	Step   uint64       `json:"step"`
	Files  []sealedFile `json:"files"` // ascending by name
}

type sealedFile struct {
	Name   string `json:"name"` // relative, with forward slashes
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// seal brings all files under dir to disk and writes the seal file.
func seal(dir string, step uint64) (Checkpoint, error) {
	s := sealed{Schema: sealSchema, Step: step}
	var folders []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			folders = append(folders, path)
			return nil
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if !e.Type().IsRegular() || name == sealFile {
			return fmt.Errorf("%s: only regular files of other names than %s are allowed", name, sealFile)
		}
		if err := wholefile.Sync(path); err != nil {
			return err
		}
		f := sealedFile{Name: filepath.ToSlash(name)}
		f.Bytes, f.SHA256, err = digestFile(path)
		s.Files = append(s.Files, f)
		return err
	})
	if err != nil {
		return Checkpoint{}, err
	}
	if len(s.Files) == 0 {
		return Checkpoint{}, fmt.Errorf("nothing was written")
	}
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return Checkpoint{}, err
	}
	if err := writeFile(filepath.Join(dir, sealFile), append(data, '\n')); err != nil {
		return Checkpoint{}, err
	}
	for _, folder := range folders {
		if err := wholefile.Sync(folder); err != nil {
			return Checkpoint{}, err
		}
	}
	return s.checkpoint(dir, append(data, '\n')), nil
}

// verify checks each file of a checkpoint against its seal. Every error wraps
// forager.ErrCorrupt.
func verify(dir string, step uint64) (Checkpoint, error) {
	damaged := func(err error) (Checkpoint, error) {
		return Checkpoint{}, fmt.Errorf("checkpoint of step %d: %w: %w", step, forager.ErrCorrupt, err)
	}
	data, err := os.ReadFile(filepath.Join(dir, sealFile))
	if err != nil {
		return damaged(err)
	}
	var s sealed
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return damaged(fmt.Errorf("%s: %w", sealFile, err))
	}
	if s.Schema != sealSchema || s.Step != step || len(s.Files) == 0 {
		return damaged(fmt.Errorf("%s: schema %d, step %d, %d files", sealFile, s.Schema, s.Step, len(s.Files)))
	}
	for _, f := range s.Files {
		if !filepath.IsLocal(filepath.FromSlash(f.Name)) {
			return damaged(fmt.Errorf("%s names %q, which lies outside", sealFile, f.Name))
		}
		size, sum, err := digestFile(filepath.Join(dir, filepath.FromSlash(f.Name)))
		switch {
		case err != nil:
			return damaged(err)
		case size != f.Bytes:
			return damaged(fmt.Errorf("%s has %d bytes instead of %d", f.Name, size, f.Bytes))
		case sum != f.SHA256:
			return damaged(fmt.Errorf("%s fails its digest", f.Name))
		}
	}
	return s.checkpoint(dir, data), nil
}

// checkpoint describes a sealed checkpoint whose seal file has the given bytes.
func (s *sealed) checkpoint(dir string, seal []byte) Checkpoint {
	sum := sha256.Sum256(seal)
	c := Checkpoint{Step: s.Step, Dir: dir, Digest: "sha256:" + hex.EncodeToString(sum[:])}
	for _, f := range s.Files {
		c.Bytes += f.Bytes
	}
	return c
}

func digestFile(path string) (size int64, sum string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = f.Close() }() // opened for reading: nothing is lost
	h := sha256.New()
	if size, err = io.Copy(h, f); err != nil {
		return 0, "", err
	}
	return size, hex.EncodeToString(h.Sum(nil)), nil
}
