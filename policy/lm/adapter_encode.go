package lm

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy/safetensors"
)

// Metadata entries of an adapter that is broadcast.
const (
	adapterKey = "forager.adapter"
	baseKey    = "forager.base"
)

// Encode gives the adapter as one safetensors file with its settings and the
// name of the model that it changes: the form in which it is broadcast.
func (a *Adapter) Encode(base string) ([]byte, error) {
	config, err := json.Marshal(a.Config)
	if err != nil {
		return nil, fmt.Errorf("encode adapter: %w", err)
	}
	var buf bytes.Buffer
	buf.Grow(4*len(a.Weights) + 1<<14)
	metadata := map[string]string{"format": "pt", adapterKey: string(config), baseKey: base}
	if err := safetensors.Write(&buf, a.named(), metadata); err != nil {
		return nil, fmt.Errorf("encode adapter: %w", err)
	}
	return buf.Bytes(), nil
}

// DecodeAdapter reads what Encode wrote, for a model of the given architecture,
// and the name of that model. Other bytes are refused with forager.ErrSchema.
func DecodeAdapter(data []byte, arch Architecture) (a *Adapter, base string, err error) {
	f, err := safetensors.Parse(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, "", fmt.Errorf("decode adapter: %w", err)
	}
	defer f.Close()
	config, ok := f.Metadata()[adapterKey]
	if !ok {
		return nil, "", fmt.Errorf("decode adapter: a file without %s: %w", adapterKey, forager.ErrSchema)
	}
	var c LoRAConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return nil, "", fmt.Errorf("decode adapter: %w: %w", forager.ErrCorrupt, err)
	}
	if a, err = NewAdapter(arch, c); err != nil {
		return nil, "", fmt.Errorf("decode adapter: %w: %w", forager.ErrCorrupt, err)
	}
	for _, t := range a.tensors() {
		w, err := f.Float32(t.name, t.shape...)
		if err != nil {
			return nil, "", fmt.Errorf("decode adapter: %w", err)
		}
		copy(a.Weights[t.offset:], w)
	}
	return a, f.Metadata()[baseKey], nil
}

// named lists the weights by PEFT's names.
func (a *Adapter) named() []safetensors.Tensor {
	var list []safetensors.Tensor
	for _, t := range a.tensors() {
		list = append(list, safetensors.FromFloat32(t.name, a.Weights[t.offset:][:t.len()], t.shape...))
	}
	return list
}
