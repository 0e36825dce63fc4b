package tokenizer

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/forager-rl/forager/internal/realdata"
)

// dataFile reads a file of the data folder, unpacked if it ends in ".gz".
func dataFile(t testing.TB, path ...string) []byte {
	t.Helper()
	name := realdata.Path(t, path...)
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var r io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			t.Fatal(err)
		}
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// gpt2 is made of the two files of the original release: the vocabulary and the
// merges, after a line with the version.
func gpt2(t testing.TB) *Tokenizer {
	t.Helper()
	f := file{stages: gpt2Stages(), Model: model{flags: flags{Type: "BPE"}}}
	if err := json.Unmarshal(dataFile(t, "tokenizers", "gpt2", "encoder.json"), &f.Model.Vocab); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(dataFile(t, "tokenizers", "gpt2", "vocab.bpe"))), "\n")
	for _, line := range lines[1:] {
		rule, err := parseMerge(line)
		if err != nil {
			t.Fatal(err)
		}
		f.Model.Merges = append(f.Model.Merges, rule)
	}
	const eos = "<|endoftext|>"
	f.Added = []addedToken{{ID: f.Model.Vocab[eos], Content: eos, Special: true}}
	tok, err := build(f)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func qwen3(t testing.TB) *Tokenizer {
	t.Helper()
	tok, err := Parse(dataFile(t, "tokenizers", "qwen3", "tokenizer.json.gz"))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// The cases and ids are those of llama.cpp's own test suite.
func TestGolden(t *testing.T) {
	for name, load := range map[string]func(testing.TB) *Tokenizer{"gpt-2": gpt2, "qwen2": qwen3} {
		t.Run(name, func(t *testing.T) {
			tok := load(t)
			golden(t, name, tok)
			written, err := tok.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			again, err := Parse(written)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, again)
			if tok.VocabSize() != again.VocabSize() || tok.EOS() != again.EOS() || tok.EOS() < 0 {
				t.Errorf("size %d, end %d; again %d, %d", tok.VocabSize(), tok.EOS(), again.VocabSize(), again.EOS())
			}
		})
	}
}

// Published vocabularies lose nothing: bytes drawn from the golden texts, and any.
func TestRoundTrip(t *testing.T) {
	inputs := dataFile(t, "tokenizers", "llamacpp", "ggml-vocab-gpt-2.gguf.inp")
	random := rand.New(rand.NewPCG(9, 10))
	for name, load := range map[string]func(testing.TB) *Tokenizer{"gpt-2": gpt2, "qwen3": qwen3} {
		tok := load(t)
		for range 5000 {
			text := make([]byte, random.IntN(40))
			from := random.IntN(len(inputs) - len(text))
			copy(text, inputs[from:])
			for i := range text {
				if random.IntN(8) == 0 {
					text[i] = byte(random.IntN(256))
				}
			}
			want := tok.normalize(string(text), true)
			if got := tok.Decode(tok.Encode(string(text))); got != want {
				t.Fatalf("%s: %q becomes %q", name, want, got)
			}
			if got := tok.Decode(tok.EncodePlain(string(text))); got != want {
				t.Fatalf("%s: plain %q becomes %q", name, want, got)
			}
		}
	}
}

func golden(t *testing.T, name string, tok *Tokenizer) {
	t.Helper()
	inputs := strings.Split(string(dataFile(t, "tokenizers", "llamacpp", "ggml-vocab-"+name+".gguf.inp")), "\n__ggml_vocab_test__\n")
	outputs := strings.Split(string(dataFile(t, "tokenizers", "llamacpp", "ggml-vocab-"+name+".gguf.out")), "\n")
	if len(inputs) != 47 || len(outputs) != 47 { // the last of either is empty
		t.Fatalf("%d inputs, %d outputs", len(inputs), len(outputs))
	}
	for i, text := range inputs {
		var want []int32
		for _, field := range strings.Fields(outputs[i]) {
			id, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, int32(id))
		}
		if got := tok.Encode(text); !slices.Equal(got, want) {
			t.Errorf("encode %q:\n got %v\nwant %v", text, got, want)
		}
		if got := tok.Decode(want); got != text {
			t.Errorf("decode %v: %q, want %q", want, got, text)
		}
	}
}

func BenchmarkEncodePublished(b *testing.B) {
	text := strings.Join(prose(1<<18), "\n")
	for name, load := range map[string]func(testing.TB) *Tokenizer{
		"qwen3":         qwen3,
		"sentencepiece": func(t testing.TB) *Tokenizer { return fixtureTokenizer(t, "prepend") },
	} {
		b.Run(name, func(b *testing.B) {
			tok := load(b)
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				tok.Encode(text)
			}
		})
	}
}
