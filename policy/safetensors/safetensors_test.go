package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/internal/realdata"
)

// raw builds a file from a header text and its data.
func raw(header string, data int) []byte {
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(out, header...), make([]byte, data)...)
}

func parseBytes(b []byte) (*File, error) { return Parse(bytes.NewReader(b), int64(len(b))) }

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.safetensors")
	floats := []float32{0, -1.5, math.MaxFloat32, float32(math.Inf(-1)), math.SmallestNonzeroFloat32, 7}
	tensors := []Tensor{
		{Name: "bytes", DType: U8, Shape: []int{3}, Data: []byte{1, 2, 255}},
		FromFloat32("w", floats, 2, 3),
		FromUint64("rng", []uint64{math.MaxUint64, 1}),
		{Name: "ids", DType: I32, Shape: []int{1}, Data: []byte{251, 255, 255, 255}},
		FromFloat32("empty", nil, 0, 4),
		{Name: "scalar", DType: F32, Data: []byte{0, 0, 128, 63}},
	}
	metadata := map[string]string{"format": "pt", "note": "<a> & b"}
	if err := WriteFile(path, tensors, metadata); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(f.Metadata(), metadata) {
		t.Errorf("metadata %v", f.Metadata())
	}
	if want := []string{"bytes", "empty", "ids", "rng", "scalar", "w"}; !slices.Equal(f.Names(), want) {
		t.Errorf("names %v", f.Names())
	}
	check(t, "w", floats)(f.Float32("w", 2, 3))
	check(t, "empty", []float32{})(f.Float32("empty", 0, 4))
	check(t, "scalar", []float32{1})(f.Float32("scalar"))
	check(t, "bytes", []byte{1, 2, 255})(f.Bytes("bytes"))
	check(t, "rng", []uint64{math.MaxUint64, 1})(f.Uint64("rng"))
	check(t, "ids", []byte{251, 255, 255, 255})(f.Bytes("ids"))
	for range 2 {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}

	slices.Reverse(tensors)
	var again bytes.Buffer
	if err := Write(&again, tensors, metadata); err != nil {
		t.Fatal(err)
	}
	if first, _ := os.ReadFile(path); !bytes.Equal(first, again.Bytes()) {
		t.Error("the bytes depend on the order of the tensors")
	}
}

func check[T comparable](t *testing.T, name string, want []T) func([]T, error) {
	return func(got []T, err error) {
		t.Helper()
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v %v, want %v", name, got, err, want)
		}
	}
}

func TestLargeTensorIsReadInChunks(t *testing.T) {
	want := make([]float32, 1<<19+3)
	for i := range want {
		want[i] = float32(i)
	}
	var b bytes.Buffer
	if err := Write(&b, []Tensor{FromFloat32("w", want)}, nil); err != nil {
		t.Fatal(err)
	}
	f, err := parseBytes(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	check(t, "w", want)(f.Float32("w", len(want)))
	got := make([]float32, len(want))
	check(t, "w", want)(got, f.ReadFloat32(got, "w", len(want)))
	if err := f.ReadFloat32(got[1:], "w"); !errors.Is(err, forager.ErrArchitecture) {
		t.Errorf("memory of another length: %v", err)
	}
}

func TestHostileFiles(t *testing.T) {
	entry := func(dtype, shape, offsets string) string {
		return `{"dtype":"` + dtype + `","shape":` + shape + `,"data_offsets":` + offsets + `}`
	}
	cases := map[string]struct {
		file []byte
		want string // in the error
	}{
		"empty":             {nil, "truncated"},
		"length only":       {raw("", 0)[:7], "truncated"},
		"header too long":   {raw(`{}`, 0)[:9], "truncated: header of 2 bytes"},
		"huge header":       {binary.LittleEndian.AppendUint64(nil, 1<<63), "at most"},
		"no header":         {raw("", 0), "not a JSON object"},
		"not JSON":          {raw("{hello}", 0), "invalid character"},
		"array":             {raw("[]", 0), "not a JSON object"},
		"cut JSON":          {raw(`{"a":`+entry("U8", "[0]", "[0,0]"), 0), "EOF"},
		"trailing":          {raw("{} {}", 0), "after the header"},
		"tensor not object": {raw(`{"a":3}`, 0), `tensor "a"`},
		"no shape":          {raw(`{"a":{"dtype":"U8","data_offsets":[0,0]}}`, 0), `tensor "a": needs dtype`},
		"null shape":        {raw(`{"a":`+entry("U8", "null", "[0,0]")+`}`, 0), `tensor "a": needs dtype`},
		"one offset":        {raw(`{"a":`+entry("U8", "[0]", "[0]")+`}`, 0), `tensor "a": needs dtype`},
		"fraction":          {raw(`{"a":`+entry("U8", "[1.5]", "[0,1]")+`}`, 1), `tensor "a": shape`},
		"backward":          {raw(`{"a":`+entry("U8", "[1]", "[1,0]")+`}`, 1), `tensor "a": data_offsets`},
		"negative offset":   {raw(`{"a":`+entry("U8", "[2]", "[-1,1]")+`}`, 1), `tensor "a": data_offsets`},
		"negative shape":    {raw(`{"a":`+entry("U8", "[-1,-1]", "[0,1]")+`}`, 1), `tensor "a": shape [-1 -1] has a negative`},
		"overflow":          {raw(`{"a":`+entry("F32", "[4294967296,4294967296,2]", "[0,0]")+`}`, 0), `tensor "a": shape [4294967296 4294967296 2] overflows`},
		"offset overflow":   {raw(`{"a":`+entry("U8", "[1]", "[0,99999999999999999999]")+`}`, 1), `tensor "a": data_offsets`},
		"shape mismatch":    {raw(`{"a":`+entry("F32", "[2]", "[0,4]")+`}`, 4), `tensor "a": F32 of shape [2] takes 8 bytes`},
		"out of range":      {raw(`{"a":`+entry("U8", "[9]", "[0,9]")+`}`, 8), `tensor "a": ends at byte 9 of 8`},
		"overlap":           {raw(`{"a":`+entry("U8", "[4]", "[0,4]")+`,"b":`+entry("U8", "[4]", "[2,6]")+`}`, 6), `tensor "b": overlaps`},
		"shared":            {raw(`{"a":`+entry("U8", "[4]", "[0,4]")+`,"b":`+entry("U8", "[4]", "[0,4]")+`}`, 4), `tensor "b": overlaps`},
		"gap":               {raw(`{"a":`+entry("U8", "[1]", "[1,2]")+`}`, 2), `tensor "a": 1 unused bytes before`},
		"unused end":        {raw(`{}`, 2), "2 unused bytes after"},
		"twice":             {raw(`{"a":`+entry("U8", "[0]", "[0,0]")+`,"a":`+entry("U8", "[0]", "[0,0]")+`}`, 0), `key "a" occurs twice`},
		"dtype twice":       {raw(`{"a":{"dtype":"U8","dtype":"F32","shape":[0],"data_offsets":[0,0]}}`, 0), `tensor "a": key "dtype" occurs twice`},
		"metadata number":   {raw(`{"__metadata__":{"k":1}}`, 0), `metadata "k"`},
	}
	for name, c := range cases {
		_, err := parseBytes(c.file)
		if !errors.Is(err, forager.ErrCorrupt) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		path := filepath.Join(t.TempDir(), "bad.safetensors")
		if err := os.WriteFile(path, c.file, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: the error does not name the file: %v", name, err)
		}
	}
	if _, err := parseBytes(raw(`{"a":`+entry("F4", "[1]", "[0,1]")+`}`, 1)); !errors.Is(err, forager.ErrSchema) {
		t.Errorf("unknown dtype: %v", err)
	}
}

// A file that shrinks after Open must be an error, not zeros.
func TestTruncatedAfterOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.safetensors")
	tensors := []Tensor{FromFloat32("w", make([]float32, 8)), FromUint64("n", make([]uint64, 8))}
	if err := WriteFile(path, tensors, nil); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := os.Truncate(path, f.data+60); err != nil {
		t.Fatal(err)
	}
	_, floatErr := f.Float32("w")
	_, intErr := f.Uint64("n")
	_, byteErr := f.Bytes("n")
	for _, err := range []error{floatErr, intErr, byteErr} {
		if !errors.Is(err, forager.ErrCorrupt) || !strings.Contains(err.Error(), path) {
			t.Errorf("truncated: %v", err)
		}
	}
}

func TestWrongQuestions(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, []Tensor{FromFloat32("w", make([]float32, 6), 2, 3)}, nil); err != nil {
		t.Fatal(err)
	}
	f, err := parseBytes(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Float32("w", 3, 2); !errors.Is(err, forager.ErrArchitecture) || !strings.Contains(err.Error(), `tensor "w": shape [2 3], want [3 2]`) {
		t.Errorf("shape: %v", err)
	}
	if _, err := f.Uint64("w"); !errors.Is(err, forager.ErrArchitecture) {
		t.Errorf("dtype: %v", err)
	}
	if _, err := f.Bytes("v"); !errors.Is(err, forager.ErrNotFound) {
		t.Errorf("missing: %v", err)
	}
}

func TestWriteRefusesBadTensors(t *testing.T) {
	w := FromFloat32("w", make([]float32, 6), 2, 3)
	for name, tensors := range map[string][]Tensor{
		"same name": {w, w},
		"reserved":  {{Name: metadataKey, DType: U8, Shape: []int{0}}},
		"dtype":     {{Name: "x", DType: "F99", Shape: []int{0}}},
		"shape":     {{Name: "x", DType: U8, Shape: []int{3}, Data: []byte{1}}},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "model.safetensors")
		if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := WriteFile(path, tensors, map[string]string{"k": "v"}); err == nil {
			t.Errorf("%s: written", name)
		}
		if old, _ := os.ReadFile(path); string(old) != "old" {
			t.Errorf("%s: the old file is gone", name)
		}
		if left, _ := os.ReadDir(dir); len(left) != 1 {
			t.Errorf("%s: left %v", name, left)
		}
	}
}

// The checkpoint was written by the reference implementation.
func TestRealCheckpoint(t *testing.T) {
	f, err := Open(realdata.Path(t, "tiny_models", "verl_arithmetic_llama", "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	embedding, err := f.Float32("model.embed_tokens.weight", 16, 128)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := f.Bytes("model.embed_tokens.weight")
	if err != nil {
		t.Fatal(err)
	}
	var again bytes.Buffer
	if err := FromBFloat16("w", embedding).write(&again); err != nil || !bytes.Equal(again.Bytes(), stored) {
		t.Error("BF16 to float32 and back changed the embedding")
	}
	var squares float64
	for _, v := range embedding {
		squares += float64(v) * float64(v)
	}
	if rms := math.Sqrt(squares / float64(len(embedding))); rms < 0.001 || rms > 10 {
		t.Errorf("embedding has root mean square %v", rms)
	}
	for _, name := range f.Names() {
		if f.DType(name) != BF16 {
			t.Errorf("%s is %s", name, f.DType(name))
		}
	}
}

// FuzzParse: whatever parses can be read in full and survives a round trip.
func FuzzParse(f *testing.F) {
	var b bytes.Buffer
	if err := Write(&b, []Tensor{FromFloat32("w", []float32{1, 2}), FromBFloat16("h", []float32{3}, 1, 1)}, map[string]string{"a": "b"}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(raw(`{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}`, 2))
	f.Add(raw(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"__metadata__":{}}`, 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := parseBytes(data)
		if err != nil {
			if !errors.Is(err, forager.ErrCorrupt) && !errors.Is(err, forager.ErrSchema) {
				t.Fatalf("unnamed error: %v", err)
			}
			return
		}
		var tensors []Tensor
		for _, name := range file.Names() {
			content, err := file.Bytes(name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := file.Float32(name); err != nil && !errors.Is(err, forager.ErrArchitecture) {
				t.Fatal(err)
			}
			shape, _ := file.Shape(name)
			tensors = append(tensors, Tensor{Name: name, DType: file.DType(name), Shape: shape, Data: content})
		}
		var out bytes.Buffer
		if err := Write(&out, tensors, file.Metadata()); err != nil {
			t.Fatal(err)
		}
		if _, err := parseBytes(out.Bytes()); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkFloat32(b *testing.B) {
	for _, dtype := range []string{F32, BF16} {
		b.Run("dtype="+dtype, func(b *testing.B) {
			build := map[string]func(string, []float32, ...int) Tensor{F32: FromFloat32, BF16: FromBFloat16}[dtype]
			tensor := build("w", slices.Repeat([]float32{1}, 1<<20))
			var out bytes.Buffer
			if err := Write(&out, []Tensor{tensor}, nil); err != nil {
				b.Fatal(err)
			}
			f, err := parseBytes(out.Bytes())
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(tensor.Size())
			for b.Loop() {
				if _, err := f.Float32("w"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
