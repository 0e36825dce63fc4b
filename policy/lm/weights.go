package lm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy/safetensors"
)

const indexFile = "model.safetensors.index.json"

// maxIndex bounds an index file in bytes: some 100 bytes a tensor.
const maxIndex = 64 << 20

// weights are the tensors of a checkpoint by their Hugging Face names: a
// safetensors file, the shards of one, or a GGUF file.
type weights interface {
	Names() []string
	Shape(name string) ([]int, bool)
	// ReadFloat32 fills out, of the tensor's length. It fails when the tensor is
	// not there or has another shape, and says in which file.
	ReadFloat32(out []float32, name string, shape ...int) error
	Close() error
}

// read makes a model of exactly the weights of its architecture. All names and
// shapes are compared first, so that no more memory is taken than the
// checkpoint has weights for. Errors call the checkpoint by the given name.
func read(arch Architecture, w weights, checkpoint string) (*Model, error) {
	names := w.Names()
	if arch.Layers > len(names) {
		return nil, fmt.Errorf("read weights %s: %d layers, but %d tensors: %w", checkpoint, arch.Layers, len(names), forager.ErrArchitecture)
	}
	tensors := arch.tensors()
	known := make(map[string]bool, len(tensors))
	for _, t := range tensors {
		known[t.name] = true
		if shape, _ := w.Shape(t.name); slices.Equal(shape, t.shape) {
			continue
		}
		err := w.ReadFloat32(nil, t.name, t.shape...)
		if t.name == headName && errors.Is(err, forager.ErrNotFound) {
			err = forager.WithHint(err, "a model whose output matrix is its embedding has tie_word_embeddings true in config.json")
		}
		return nil, err
	}
	for _, name := range names {
		if !known[name] && !(name == headName && arch.TieEmbeddings) && !strings.HasSuffix(name, "rotary_emb.inv_freq") {
			return nil, fmt.Errorf("read weights %s: tensor %q is not part of a %s model with this configuration: %w",
				checkpoint, name, arch.ModelType, forager.ErrArchitecture)
		}
	}
	m := newModel(arch, make([]float32, arch.Parameters()))
	for _, t := range tensors {
		if err := w.ReadFloat32(m.Weights[t.offset:][:t.len()], t.name, t.shape...); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// openWeights opens the safetensors files of a folder.
func openWeights(dir string) (weights, error) {
	whole, err := safetensors.Open(filepath.Join(dir, weightsFile))
	if err == nil {
		return whole, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if _, missing := os.Stat(filepath.Join(dir, indexFile)); missing != nil {
		return nil, forager.WithHint(err, "weights are read from "+weightsFile+", or from the shards that "+indexFile+" names")
	}
	return openShards(dir)
}

// shards are the files of a checkpoint that was cut into several.
type shards struct {
	index string // path, for errors
	files map[string]*safetensors.File
	file  map[string]*safetensors.File // by tensor
}

func openShards(dir string) (weights, error) {
	s := &shards{index: filepath.Join(dir, indexFile), files: map[string]*safetensors.File{}, file: map[string]*safetensors.File{}}
	data, err := readSmall(s.index, maxIndex)
	if err != nil {
		return nil, fmt.Errorf("read index of weights: %w", err)
	}
	var index shardIndex
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("read index of weights %s: %w: %w", s.index, forager.ErrCorrupt, err)
	}
	for _, tensor := range slices.Sorted(maps.Keys(index.WeightMap)) {
		if s.file[tensor], err = s.open(dir, index.WeightMap[tensor]); err != nil {
			return nil, errors.Join(fmt.Errorf("read index of weights %s: tensor %q: %w", s.index, tensor, err), s.Close())
		}
	}
	return s, nil
}

// shardIndex is the contents of model.safetensors.index.json.
type shardIndex struct {
	Metadata  map[string]any    `json:"metadata"`
	WeightMap map[string]string `json:"weight_map"` // tensor to file
}

// readSmall reads a file of at most the given number of bytes.
func readSmall(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err = errors.Join(err, f.Close()); err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s: more than %d bytes: %w", path, most, forager.ErrCorrupt)
	}
	return data, err
}

// open opens a shard once. Its name must be that of a file in the folder.
func (s *shards) open(dir, name string) (*safetensors.File, error) {
	if f, ok := s.files[name]; ok {
		return f, nil
	}
	if name != filepath.Base(name) || !filepath.IsLocal(name) || name == "." {
		return nil, fmt.Errorf("shard %q is not a file in the same folder: %w", name, forager.ErrCorrupt)
	}
	f, err := safetensors.Open(filepath.Join(dir, name))
	if err == nil {
		s.files[name] = f
	}
	return f, err
}

func (s *shards) Names() []string { return slices.Sorted(maps.Keys(s.file)) }

func (s *shards) Shape(name string) ([]int, bool) {
	if f, ok := s.file[name]; ok {
		return f.Shape(name)
	}
	return nil, false
}

func (s *shards) ReadFloat32(out []float32, name string, shape ...int) error {
	f, ok := s.file[name]
	if !ok {
		return fmt.Errorf("read weights %s: tensor %q: %w", s.index, name, forager.ErrNotFound)
	}
	return f.ReadFloat32(out, name, shape...)
}

func (s *shards) Close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
