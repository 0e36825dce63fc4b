package lm

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/forager-rl/forager/internal/realdata"
	"github.com/forager-rl/forager/policy"
)

// stories260K is the smallest model of Andrej Karpathy's llama2.c, with what
// that program computes from it.
const stories260K = "tiny_models/stories260K"

// readLlama2C reads the first format of llama2.c's checkpoints: seven integers,
// then each kind of weights for all layers.
func readLlama2C(t testing.TB, path string) *Model {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := bytes.NewReader(data)
	next := func(into any) {
		t.Helper()
		if err := binary.Read(r, binary.LittleEndian, into); err != nil {
			t.Fatal(err)
		}
	}
	var head struct{ Dim, Hidden, Layers, Heads, KVHeads, Vocab, Context int32 }
	next(&head)
	arch := Architecture{
		VocabSize: int(head.Vocab), HiddenSize: int(head.Dim), IntermediateSize: int(head.Hidden), Layers: int(head.Layers),
		Heads: int(head.Heads), KVHeads: int(head.KVHeads), ContextLength: int(head.Context), NormEpsilon: 1e-5,
		TieEmbeddings: true, // a negative vocabulary would mean that it is not
	}.normalised()
	if err := arch.Validate(); err != nil {
		t.Fatal(err)
	}
	m := newModel(arch, make([]float32, arch.Parameters()))
	queries, keys := head.Dim*head.Dim, head.KVHeads*int32(arch.HeadDim)*head.Dim
	next(m.params.embed)
	each := func(part func(l *layerParams) []float32) {
		t.Helper()
		for l := range m.params.layers {
			next(part(&m.params.layers[l]))
		}
	}
	half := head.Hidden * head.Dim
	each(func(l *layerParams) []float32 { return l.attnNorm })
	each(func(l *layerParams) []float32 { return l.qkv[:queries] })
	each(func(l *layerParams) []float32 { return l.qkv[queries:][:keys] })
	each(func(l *layerParams) []float32 { return l.qkv[queries+keys:] })
	each(func(l *layerParams) []float32 { return l.out })
	each(func(l *layerParams) []float32 { return l.mlpNorm })
	each(func(l *layerParams) []float32 { return l.gateUp[:half] })
	each(func(l *layerParams) []float32 { return l.down })
	each(func(l *layerParams) []float32 { return l.gateUp[half:] })
	next(m.params.norm)
	if tables := arch.ContextLength * arch.HeadDim * 4; r.Len() != tables { // cosines and sines
		t.Fatalf("%d bytes are left, want %d", r.Len(), tables)
	}
	for _, l := range m.params.layers { // it rotates neighbours
		splitHalves(l.qkv[:queries+keys], arch.HeadDim, arch.HiddenSize)
	}
	return m
}

// pieces are the tokens of llama2.c's tokenizer file.
type pieces []string

func (p pieces) TokenBytes(id int32) []byte { return []byte(p[id]) }
func (pieces) EOS() int32                   { return 1 } // the next story begins

func readPieces(t testing.TB, path string, n int) (list pieces) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Seek(4, io.SeekStart); err != nil { // length of the longest
		t.Fatal(err)
	}
	for range n {
		var head struct {
			Score float32
			Bytes int32
		}
		if err := binary.Read(f, binary.LittleEndian, &head); err != nil {
			t.Fatal(err)
		}
		text := make([]byte, head.Bytes)
		if _, err := io.ReadFull(f, text); err != nil {
			t.Fatal(err)
		}
		if piece := string(text); len(piece) == 6 && strings.HasPrefix(piece, "<0x") {
			if text, err = hex.DecodeString(piece[3:5]); err != nil {
				t.Fatal(err)
			}
		}
		list = append(list, string(text))
	}
	return list
}

// TestStoriesLogits compares the logits of 32 greedy steps from the beginning
// of a story with those of llama2.c.
func TestStoriesLogits(t *testing.T) {
	dir := realdata.Path(t, stories260K)
	m := readLlama2C(t, filepath.Join(dir, "stories260K.bin"))
	data, err := os.ReadFile(filepath.Join(dir, "expected_logits_f32_pos0-31x512.bin"))
	if err != nil {
		t.Fatal(err)
	}
	want := make([]float32, len(data)/4)
	if _, err := binary.Decode(data, binary.LittleEndian, want); err != nil {
		t.Fatal(err)
	}
	tokens := []int32{1}
	for len(tokens) < 32 {
		tokens = append(tokens, argmax(want[(len(tokens)-1)*m.Arch.VocabSize:][:m.Arch.VocabSize]))
	}
	got, err := newTrainer(t, m, nil).Logits(tokens)
	if err != nil {
		t.Fatal(err)
	}
	diff := maxDifference(t, got, want)
	t.Logf("logits differ by at most %.3g", diff)
	if !(diff <= 1e-3) {
		t.Errorf("logits differ by %.3g", diff)
	}
}

// TestStoriesText generates 200 tokens greedily and wants llama2.c's text.
func TestStoriesText(t *testing.T) {
	dir := realdata.Path(t, stories260K)
	m := readLlama2C(t, filepath.Join(dir, "stories260K.bin"))
	vocab := readPieces(t, filepath.Join(dir, "tok512.bin"), m.Arch.VocabSize)
	want, err := os.ReadFile(filepath.Join(dir, "expected_temp0_n200.txt"))
	if err != nil {
		t.Fatal(err)
	}
	e := start(t, m, vocab, DefaultEngineConfig())
	c, err := e.Generate(t.Context(), policy.Request{Session: 1, Context: []int32{1}, MaxTokens: 200})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, id := range c.Tokens {
		text.Write(vocab.TokenBytes(id))
	}
	// llama2.c drops the space that begins a story.
	if got := strings.TrimPrefix(text.String(), " "); got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func argmax(x []float32) int32 {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return int32(best)
}
