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

// Save writes config.json and model.safetensors into an existing folder, in
// the form that Hugging Face's LlamaForCausalLM loads.
func (m *Model) Save(dir string) error {
	config, err := json.MarshalIndent(m.Arch, "", "  ")
	if err != nil {
		return fmt.Errorf("encode model configuration: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, configFile), append(config, '\n'), 0o644); err != nil {
		return fmt.Errorf("write model configuration: %w", err)
	}
	return safetensors.WriteFile(filepath.Join(dir, weightsFile), m.named(), map[string]string{"format": "pt"})
}

// Load reads a model from a Hugging Face folder.
func Load(dir string) (*Model, error) {
	arch, err := ReadArchitecture(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = forager.WithHint(err, "a policy is a folder with config.json, model.safetensors and tokenizer.json")
		}
		return nil, err
	}
	f, err := safetensors.Open(filepath.Join(dir, weightsFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return read(arch, f)
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
	return read(arch, f)
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
	if err := safetensors.Write(&buf, m.named(), map[string]string{"format": "pt", configKey: string(config)}); err != nil {
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
	return read(arch, f)
}

// named lists the weights by their Hugging Face names.
func (m *Model) named() []safetensors.Tensor {
	var list []safetensors.Tensor
	for _, t := range m.Arch.tensors() {
		list = append(list, safetensors.FromFloat32(t.name, m.Weights[t.offset:t.offset+t.len()], t.shape...))
	}
	return list
}

func read(arch Architecture, f *safetensors.File) (*Model, error) {
	m := newModel(arch, make([]float32, arch.Parameters()))
	for _, t := range arch.tensors() {
		w, err := f.Float32(t.name, t.shape...)
		if err != nil {
			return nil, err
		}
		copy(m.Weights[t.offset:], w)
	}
	return m, nil
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
