package lm

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/forager-rl/forager"
)

func TestBroadcastAdapter(t *testing.T) {
	m, err := New(Tiny(64), rand.New(rand.NewPCG(1, 0)))
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewAdapter(m.Arch, LoRAConfig{Rank: 3, Alpha: 5, Targets: []string{"q_proj", "down_proj"}})
	if err != nil {
		t.Fatal(err)
	}
	data, err := a.Encode("the base")
	if err != nil {
		t.Fatal(err)
	}
	got, base, err := DecodeAdapter(data, m.Arch)
	if err != nil {
		t.Fatal(err)
	}
	if base != "the base" || !slices.Equal(got.Weights, a.Weights) || got.Config.Rank != 3 || got.Config.Alpha != 5 || !slices.Equal(got.Config.Targets, a.Config.Targets) {
		t.Errorf("base %q, settings %+v", base, got.Config)
	}
	whole, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := DecodeAdapter(whole, m.Arch); !errors.Is(err, forager.ErrSchema) {
		t.Errorf("a whole model: %v", err)
	}
	if _, _, err := DecodeAdapter(data[:len(data)-8], m.Arch); !errors.Is(err, forager.ErrCorrupt) {
		t.Errorf("a cut file: %v", err)
	}
}
