package lm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy/safetensors"
)

// Names of the files in a Hugging Face folder.
const (
	configFile    = "config.json"
	weightsFile   = "model.safetensors"
	optimizerFile = "optimizer.safetensors"
)

// configKey is the metadata entry that carries config.json inside broadcast
// weights, so that their receiver can check what it got.
const configKey = "forager.config"

// Load reads a model from a Hugging Face folder with config.json and
// model.safetensors (or its shards and model.safetensors.index.json), or from a
// GGUF file. Weights of F32, F16 or BF16, and the quantised ones of package
// gguf, become float32 tensor by tensor, so that the peak of memory is the
// model and a few megabytes.
//
// Tensors must be those of the architecture: missing ones, others, and other
// shapes are errors that wrap [forager.ErrNotFound] or [forager.ErrArchitecture]
// and name the tensor and the file. Only tables of rotary positions, and an
// output matrix beside a tied embedding, are passed over, as transformers does.
func Load(path string) (*Model, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, forager.WithHint(fmt.Errorf("load model: %w", err), policyHint)
	case info.IsDir():
		return loadFolder(path)
	}
	return loadGGUF(path)
}

const policyHint = "a policy is a folder with config.json, model.safetensors and tokenizer.json, or a .gguf file"

func loadFolder(dir string) (*Model, error) {
	arch, err := ReadArchitecture(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = forager.WithHint(err, policyHint)
		}
		return nil, err
	}
	w, err := openWeights(dir)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	return read(arch, w, dir)
}

// Read is Load for the contents of config.json and of a safetensors file.
func Read(config []byte, weights io.ReaderAt, size int64) (*Model, error) {
	arch, err := parseArchitecture(config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", configFile, err)
	}
	f, err := safetensors.Parse(weights, size)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return read(arch, f, weightsFile)
}

// Encode gives the model as one safetensors file with its configuration in the
// metadata: the form in which weights are broadcast.
func (m *Model) Encode() ([]byte, error) {
	config, err := json.Marshal(m.Arch)
	if err != nil {
		return nil, fmt.Errorf("encode model configuration: %w", err)
	}
	var buf bytes.Buffer
	buf.Grow(4*len(m.Weights) + 1<<14)
	if err := safetensors.Write(&buf, m.named(false), map[string]string{"format": "pt", configKey: string(config)}); err != nil {
		return nil, fmt.Errorf("encode weights: %w", err)
	}
	return buf.Bytes(), nil
}

// Decode reads what Encode wrote.
func Decode(data []byte) (*Model, error) {
	f, err := safetensors.Parse(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, fmt.Errorf("decode weights: %w", err)
	}
	defer f.Close()
	arch, err := parseArchitecture([]byte(f.Metadata()[configKey]))
	if err != nil {
		return nil, fmt.Errorf("decode weights: configuration: %w", err)
	}
	return read(arch, f, weightsFile)
}

// Save writes the optimiser state into an existing folder.
func (s OptimizerState) Save(dir string) error {
	return safetensors.WriteFile(filepath.Join(dir, optimizerFile), []safetensors.Tensor{
		safetensors.FromUint64("updates", []uint64{s.Updates}, 1),
		safetensors.FromFloat32("moment1", s.Moment1, len(s.Moment1)),
		safetensors.FromFloat32("moment2", s.Moment2, len(s.Moment2)),
	}, nil)
}

// LoadOptimizer reads what OptimizerState.Save wrote.
func LoadOptimizer(dir string) (OptimizerState, error) {
	f, err := safetensors.Open(filepath.Join(dir, optimizerFile))
	if err != nil {
		return OptimizerState{}, err
	}
	defer f.Close()
	updates, err := f.Uint64("updates", 1)
	if err != nil {
		return OptimizerState{}, err
	}
	s := OptimizerState{Updates: updates[0]}
	if s.Moment1, err = f.Float32("moment1"); err != nil {
		return s, err
	}
	if s.Moment2, err = f.Float32("moment2"); err != nil {
		return s, err
	}
	return s, nil
}
