package search

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/blevesearch/bleve/v2"

	"github.com/forager-rl/forager"
)

const (
	indexFormat = 1
	labelFile   = "forager-index.json"
	bleveFolder = "bleve"
	openTimeout = 10 * time.Second // for the lock of the index files
)

// label says what an index folder holds.
type label struct {
	Format   int    `json:"format"`
	Passages int    `json:"passages"`
	Digest   string `json:"digest"` // of passages and indexing settings
}

// OpenBM25 keeps the index in a folder: an index of the same passages and
// settings is opened, anything else that OpenBM25 wrote there is replaced. The
// passages themselves stay in memory. progress, unless nil, is told how many
// passages are indexed; it is not called when the index is reused. A folder
// with foreign content is left alone and is an error.
func OpenBM25(ctx context.Context, dir string, passages []forager.Passage, config BM25Config, progress func(done, total int)) (*BM25, error) {
	sorted, err := prepare(passages, config)
	if err != nil {
		return nil, fmt.Errorf("open index %s: %w", dir, err)
	}
	wanted := label{Format: indexFormat, Passages: len(sorted), Digest: digest(sorted, config)}
	found, err := readLabel(dir)
	if err != nil {
		return nil, fmt.Errorf("open index %s: %w", dir, err)
	}
	if found != wanted {
		if progress == nil {
			progress = func(int, int) {}
		}
		if err := buildOnDisk(ctx, dir, wanted, sorted, config, progress); err != nil {
			return nil, fmt.Errorf("build index %s: %w", dir, err)
		}
	}
	built, err := bleve.OpenUsing(filepath.Join(dir, bleveFolder), map[string]any{
		"read_only": true, "bolt_timeout": openTimeout.String(),
	})
	if err != nil {
		return nil, forager.WithHint(fmt.Errorf("open index %s: %w", dir, err), "delete the folder to build it anew")
	}
	index, err := newIndex(built, config)
	if err != nil {
		return nil, fmt.Errorf("open index %s: %w", dir, err)
	}
	return newBM25(sorted, config, index)
}

// readLabel is the label of an index folder, empty when there is none yet.
func readLabel(dir string) (label, error) {
	text, err := os.ReadFile(filepath.Join(dir, labelFile))
	if err == nil {
		var found label
		if json.Unmarshal(text, &found) != nil {
			found = label{} // rebuilt, as any other index that does not fit
		}
		return found, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return label{}, err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return label{}, nil
	}
	if err == nil && len(entries) > 0 {
		err = forager.WithHint(fmt.Errorf("folder holds %s and no %s", entries[0].Name(), labelFile), "name an empty folder")
	}
	return label{}, err
}

// buildOnDisk builds beside dir and moves the finished index into place.
func buildOnDisk(ctx context.Context, dir string, wanted label, passages []forager.Passage, config BM25Config, progress func(done, total int)) (err error) {
	parent := filepath.Dir(filepath.Clean(dir))
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	temporary, err := os.MkdirTemp(parent, "."+filepath.Base(dir)+"-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temporary)) }()
	if err := fillOnDisk(ctx, temporary, passages, config, progress); err != nil {
		return err
	}
	text, err := json.Marshal(wanted)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(temporary, labelFile), text, 0o644); err != nil {
		return err
	}
	if err := os.Chmod(temporary, 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(temporary, dir)
}

func fillOnDisk(ctx context.Context, temporary string, passages []forager.Passage, config BM25Config, progress func(done, total int)) error {
	builder, err := bleve.NewBuilder(filepath.Join(temporary, bleveFolder), indexMapping(config), map[string]any{
		"batchSize": batchSize, "buildPathPrefix": temporary,
	})
	if err != nil {
		return err
	}
	for i, passage := range passages {
		if i%1000 == 0 {
			progress(i, len(passages))
			if err := ctx.Err(); err != nil {
				return err // what the builder wrote goes with the temporary folder
			}
		}
		if err := builder.Index(strconv.Itoa(i), indexed(passage, config)); err != nil {
			return fmt.Errorf("passage %s: %w", passage.ID, err)
		}
	}
	if err := builder.Close(); err != nil {
		return err
	}
	progress(len(passages), len(passages))
	return nil
}

// digest names the content of an index: equal digests, equal postings.
func digest(passages []forager.Passage, config BM25Config) string {
	hash := sha256.New()
	_, _ = fmt.Fprintf(hash, "%d %d %s\n", indexFormat, config.TitleWeight, analyzerName(config)) // a hash never fails
	var length [8]byte
	for _, passage := range passages {
		for _, part := range []string{passage.ID, passage.Title, passage.Text} {
			binary.LittleEndian.PutUint64(length[:], uint64(len(part)))
			hash.Write(length[:])
			hash.Write([]byte(part))
		}
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil))
}
