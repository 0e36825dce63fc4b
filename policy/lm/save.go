package lm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/forager-rl/forager/policy/safetensors"
)

// headName is the tensor of the output matrix, absent where the embedding
// serves as one.
const headName = "lm_head.weight"

// SaveOptions say how a model is stored.
type SaveOptions struct {
	// BFloat16 rounds the weights to bfloat16, which halves the files.
	BFloat16 bool
	// ShardBytes bounds a file of weights; a larger model is cut into several
	// with an index. One larger tensor still gets a file of its own. 0 means
	// 5 GB, the custom of Hugging Face.
	ShardBytes int64
}

const defaultShardBytes = 5_000_000_000

// Save writes config.json and model.safetensors, in float32, into an existing
// folder, in the form that transformers loads.
func (m *Model) Save(dir string) error { return m.SaveAs(dir, SaveOptions{}) }

// SaveAs is Save with options.
func (m *Model) SaveAs(dir string, options SaveOptions) error {
	arch := m.Arch
	arch.TorchDType = "float32"
	if options.BFloat16 {
		arch.TorchDType = "bfloat16"
	}
	if err := writeJSON(filepath.Join(dir, configFile), arch); err != nil {
		return fmt.Errorf("write model configuration: %w", err)
	}
	if options.ShardBytes == 0 {
		options.ShardBytes = defaultShardBytes
	}
	parts := m.cut(options)
	if len(parts) == 1 {
		if err := safetensors.WriteFile(filepath.Join(dir, weightsFile), parts[0], fileMetadata); err != nil {
			return err
		}
		return remove(filepath.Join(dir, indexFile))
	}
	if err := writeShards(dir, parts); err != nil {
		return err
	}
	return remove(filepath.Join(dir, weightsFile)) // readers would prefer it
}

// fileMetadata marks tensors in PyTorch's layout; transformers wants it.
var fileMetadata = map[string]string{"format": "pt"}

// cut distributes the tensors over files, in order.
func (m *Model) cut(options SaveOptions) (parts [][]safetensors.Tensor) {
	var size int64
	for _, t := range m.named(options.BFloat16) {
		if len(parts) == 0 || size+t.Size() > options.ShardBytes {
			parts, size = append(parts, nil), 0
		}
		parts[len(parts)-1] = append(parts[len(parts)-1], t)
		size += t.Size()
	}
	return parts
}

// named lists the weights by their Hugging Face names.
func (m *Model) named(bfloat16 bool) []safetensors.Tensor {
	store := safetensors.FromFloat32
	if bfloat16 {
		store = safetensors.FromBFloat16
	}
	var list []safetensors.Tensor
	for _, t := range m.Arch.tensors() {
		list = append(list, store(t.name, m.Weights[t.offset:][:t.len()], t.shape...))
	}
	return list
}

func writeShards(dir string, parts [][]safetensors.Tensor) error {
	index := shardIndex{WeightMap: map[string]string{}}
	var total int64
	for i, part := range parts {
		name := fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(parts))
		if err := safetensors.WriteFile(filepath.Join(dir, name), part, fileMetadata); err != nil {
			return err
		}
		for _, t := range part {
			index.WeightMap[t.Name] = name
			total += t.Size()
		}
	}
	index.Metadata = map[string]any{"total_size": total}
	if err := writeJSON(filepath.Join(dir, indexFile), index); err != nil {
		return fmt.Errorf("write index of weights: %w", err)
	}
	return nil
}

func writeJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove former weights: %w", err)
	}
	return nil
}
