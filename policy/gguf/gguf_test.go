package gguf

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
	"github.com/forager-rl/forager/policy/safetensors"
)

// builder writes files, right and wrong ones.
type builder struct{ bytes.Buffer }

func (b *builder) put(values ...any) *builder {
	for _, v := range values {
		switch v := v.(type) {
		case string:
			b.put(uint64(len(v)))
			b.WriteString(v)
		default:
			if err := binary.Write(b, binary.LittleEndian, v); err != nil {
				panic(err)
			}
		}
	}
	return b
}

// file begins a file with the given counts.
func file(tensors, pairs int) *builder {
	b := &builder{}
	b.WriteString("GGUF")
	return b.put(uint32(3), uint64(tensors), uint64(pairs))
}

// tensor adds an entry of the directory, sizes innermost first.
func (b *builder) tensor(name string, kind uint32, offset uint64, sizes ...uint64) *builder {
	return b.put(name, uint32(len(sizes)), sizes, kind, offset)
}

// data pads to the alignment and adds n bytes that count up.
func (b *builder) data(n int) *builder {
	for b.Len()%defaultAlignment != 0 {
		b.WriteByte(0)
	}
	for i := range n {
		b.WriteByte(byte(i))
	}
	return b
}

func (b *builder) parse() (*File, error) {
	return parse("test", bytes.NewReader(b.Bytes()), int64(b.Len()))
}

func TestMetadata(t *testing.T) {
	b := file(0, 15).put("u8", uint32(typeUint8), uint8(200), "i8", uint32(typeInt8), int8(-3),
		"u16", uint32(typeUint16), uint16(60000), "i16", uint32(typeInt16), int16(-300),
		"u32", uint32(typeUint32), uint32(4e9), "i32", uint32(typeInt32), int32(-4), "f32", uint32(typeFloat32), float32(0.5),
		"bool", uint32(typeBool), uint8(1), "text", uint32(typeString), "früh",
		"u64", uint32(typeUint64), uint64(1<<62), "i64", uint32(typeInt64), int64(-5), "f64", uint32(typeFloat64), 1e300,
		"list", uint32(typeArray), uint32(typeString), uint64(2), "a", "",
		"ids", uint32(typeArray), uint32(typeInt32), uint64(2), int32(-1), int32(7),
		"scores", uint32(typeArray), uint32(typeFloat32), uint64(1), float32(-2))
	f, err := b.parse()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"u8": int64(200), "i8": int64(-3), "u16": int64(60000), "i16": int64(-300), "u32": int64(4e9), "i32": int64(-4), "f32": 0.5,
		"bool": true, "text": "früh", "u64": int64(1 << 62), "i64": int64(-5), "f64": 1e300,
		"list": []string{"a", ""}, "ids": []int32{-1, 7}, "scores": []float32{-2},
	}
	if !reflect.DeepEqual(f.metadata, want) {
		t.Errorf("metadata %v", f.metadata)
	}
	if v, err := f.Int("i8"); v != -3 || err != nil {
		t.Errorf("Int: %v %v", v, err)
	}
	if v, err := f.Float("f32"); v != 0.5 || err != nil {
		t.Errorf("Float: %v %v", v, err)
	}
	if _, err := f.Text("u8"); !errors.Is(err, forager.ErrSchema) || !strings.Contains(err.Error(), `"u8"`) {
		t.Errorf("another type: %v", err)
	}
	if _, err := f.Text("none"); !errors.Is(err, forager.ErrNotFound) || f.Has("none") {
		t.Errorf("missing: %v", err)
	}
}

func TestTensors(t *testing.T) {
	f, err := file(2, 0).tensor("rows", 0, 0, 3, 2).tensor("halves", 1, 32, 4).data(40).parse()
	if err != nil {
		t.Fatal(err)
	}
	if shape, ok := f.Shape("rows"); !ok || !slices.Equal(shape, []int{2, 3}) || f.Encoding("rows") != "F32" {
		t.Errorf("rows: %v %v", shape, f.Encoding("rows"))
	}
	if !slices.Equal(f.Names(), []string{"halves", "rows"}) {
		t.Errorf("names %v", f.Names())
	}
	rows := make([]float32, 6)
	if err := f.ReadFloat32(rows, "rows", 2, 3); err != nil || rows[1] != math.Float32frombits(0x07060504) {
		t.Errorf("rows %v %v", rows, err)
	}
	for _, c := range []struct {
		name  string
		n     int
		shape []int
		want  error
	}{
		{"none", 6, nil, forager.ErrNotFound}, {"rows", 6, []int{3, 2}, forager.ErrArchitecture}, {"rows", 5, nil, forager.ErrArchitecture},
	} {
		if err := f.ReadFloat32(make([]float32, c.n), c.name, c.shape...); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.name) {
			t.Errorf("%v: %v", c, err)
		}
	}
}

// TestEncodings compares with what the reference implementation makes of the
// same blocks (bench/fixtures/make.py). The tensor is long enough to be read
// in several parts.
func TestEncodings(t *testing.T) {
	golden, err := safetensors.Open("testdata/blocks.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = golden.Close() }()
	seen := 0
	for kind, e := range encodings {
		if e.name == "F32" || e.name == "F16" {
			continue
		}
		seen++
		raw, err1 := golden.Bytes(e.name)
		once, err2 := golden.Float32(e.name + ".float32")
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		times := 3<<16/len(raw) + 1
		want := slices.Repeat(once, times)
		b := file(1, 0).tensor("w", kind, 0, uint64(len(want))).data(0)
		b.Write(bytes.Repeat(raw, times))
		f, err := b.parse()
		if err != nil {
			t.Fatal(err)
		}
		got := make([]float32, len(want))
		if err := f.ReadFloat32(got, "w"); err != nil {
			t.Fatal(err)
		}
		for i := range want {
			// The reference rounds in another order where there is a minimum.
			if diff := math.Abs(float64(got[i] - want[i])); !(diff <= 1e-6*math.Abs(float64(want[i]))+1e-5) {
				t.Fatalf("%s: number %d is %g, want %g", e.name, i, got[i], want[i])
			}
		}
	}
	if seen != 9 {
		t.Errorf("%d encodings compared", seen)
	}
}

func TestHostileFiles(t *testing.T) {
	const huge = uint64(math.MaxUint64)
	pair := func(values ...any) *builder { return file(0, 1).put("key").put(values...) }
	one := func(kind uint32, offset uint64, sizes ...uint64) *builder {
		return file(1, 0).tensor("w", kind, offset, sizes...).data(64)
	}
	cases := map[string]struct {
		b    *builder
		want error
		says string
	}{
		"empty":              {&builder{}, forager.ErrCorrupt, "truncated"},
		"other file":         {&builder{*bytes.NewBufferString("PK\x03\x04PK\x03\x04")}, forager.ErrCorrupt, "not a GGUF file"},
		"version 1":          {&builder{*bytes.NewBufferString("GGUF\x01\x00\x00\x00")}, forager.ErrSchema, "version 1"},
		"big-endian":         {&builder{*bytes.NewBufferString("GGUF\x00\x00\x00\x03")}, forager.ErrSchema, "big-endian"},
		"tensor count":       {file(math.MaxInt64, 0), forager.ErrCorrupt, "tensors"},
		"pair count":         {file(0, math.MaxInt64), forager.ErrCorrupt, "metadata pairs"},
		"cut value":          {pair(uint32(typeUint64), uint32(0)), forager.ErrCorrupt, `"key": truncated`},
		"key length":         {file(0, 1).put(huge, make([]byte, 20)), forager.ErrCorrupt, "metadata pair 0"},
		"value type":         {pair(uint32(13), uint64(0)), forager.ErrSchema, `"key": value of type 13`},
		"array type":         {pair(uint32(typeArray), uint32(typeArray), uint64(0)), forager.ErrSchema, "array of type 9"},
		"array length":       {pair(uint32(typeArray), uint32(typeUint8), huge), forager.ErrCorrupt, "array elements"},
		"array of strings":   {pair(uint32(typeArray), uint32(typeString), uint64(3), make([]byte, 20)), forager.ErrCorrupt, "array elements"},
		"string length":      {pair(uint32(typeString), huge), forager.ErrCorrupt, `"key"`},
		"bool":               {pair(uint32(typeBool), uint8(2)), forager.ErrCorrupt, "bool"},
		"large integer":      {pair(uint32(typeUint64), huge), forager.ErrCorrupt, "overflows"},
		"same key":           {file(0, 2).put("k", uint32(typeBool), uint8(1), "k", uint32(typeBool), uint8(1)), forager.ErrCorrupt, "twice"},
		"same tensor":        {file(2, 0).tensor("w", 0, 0, 1).tensor("w", 0, 32, 1).data(64), forager.ErrCorrupt, "twice"},
		"no dimensions":      {one(0, 0), forager.ErrCorrupt, `"w": 0 dimensions`},
		"five dimensions":    {one(0, 0, 1, 1, 1, 1, 1), forager.ErrCorrupt, "5 dimensions"},
		"empty dimension":    {one(0, 0, 4, 0), forager.ErrCorrupt, "dimension 1 is 0"},
		"negative dimension": {one(0, 0, huge), forager.ErrCorrupt, "dimension 0"},
		"overflow":           {one(0, 0, 1<<32, 1<<32), forager.ErrCorrupt, "dimension 1"},
		"overflow in bytes":  {one(0, 0, 1<<62), forager.ErrCorrupt, "overflows"},
		"encoding":           {one(99, 0, 32), forager.ErrSchema, `"w": encoding 99`},
		"part of a block":    {one(8, 0, 33), forager.ErrCorrupt, "whole blocks of Q8_0"},
		"offset not aligned": {one(0, 4, 1), forager.ErrCorrupt, "multiple of 32"},
		"offset outside":     {one(0, 96, 1), forager.ErrCorrupt, "truncated or out of range"},
		"offset overflows":   {one(0, huge, 1), forager.ErrCorrupt, "overflows"},
		"offset wraps":       {one(0, math.MaxInt64-31, 1), forager.ErrCorrupt, "out of range"},
		"truncated":          {one(0, 32, 9), forager.ErrCorrupt, `"w": 36 bytes at offset 32`},
		"no data at all":     {file(1, 0).tensor("w", 0, 0, 1), forager.ErrCorrupt, "truncated"},
		"overlap":            {file(2, 0).tensor("a", 0, 0, 9).tensor("b", 0, 32, 1).data(64), forager.ErrCorrupt, `"b": overlaps tensor "a"`},
		"alignment of 3":     {file(0, 1).put(alignmentKey, uint32(typeUint32), uint32(3)), forager.ErrCorrupt, "power of two"},
		"alignment of 0":     {file(0, 1).put(alignmentKey, uint32(typeUint32), uint32(0)), forager.ErrCorrupt, "power of two"},
		"alignment as text":  {file(0, 1).put(alignmentKey, uint32(typeString), "32"), forager.ErrCorrupt, "power of two"},
	}
	for name, c := range cases {
		if _, err := c.b.parse(); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpenNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.gguf")
	if err := os.WriteFile(path, file(1, 0).Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !errors.Is(err, forager.ErrCorrupt) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v", err)
	}
	f, err := Open("../lm/testdata/llama/model.gguf")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Close(), f.Close()); err != nil {
		t.Error(err)
	}
}

func TestTokenizer(t *testing.T) {
	f, err := Open("../lm/testdata/llama/model.gguf")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	got, err := f.Tokenizer()
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Tokens) != 80 || len(got.Types) != 80 || got.Tokens[79] != "abc" || got.Types[2] != TokenControl || got.Types[3] != TokenNormal {
		t.Errorf("tokens %v of types %v", got.Tokens, got.Types)
	}
	got.Tokens, got.Types = nil, nil
	want := Tokenizer{
		Model: "gpt2", Pre: "gpt-2", Merges: []string{"a b", "ab c"}, BOS: 1, EOS: 2, EOT: NoToken, Unknown: NoToken, Padding: NoToken,
		ChatTemplate: "{{ messages[0].content }}",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}

func TestTokenizerTablesThatDoNotFit(t *testing.T) {
	base := func(pairs int) *builder {
		return file(0, 2+pairs).put("tokenizer.ggml.model", uint32(typeString), "llama",
			"tokenizer.ggml.tokens", uint32(typeArray), uint32(typeString), uint64(2), "a", "b")
	}
	good, err := base(0).parse()
	if err != nil {
		t.Fatal(err)
	}
	if tables, err := good.Tokenizer(); err != nil || !tables.AddBOS || !tables.AddSpacePrefix || !slices.Equal(tables.Types, []TokenType{1, 1}) {
		t.Errorf("defaults: %+v %v", tables, err)
	}
	for name, c := range map[string]struct {
		b    *builder
		want error
		says string
	}{
		"no tokenizer": {file(0, 0), forager.ErrNotFound, "tokenizer.ggml.model"},
		"types":        {base(1).put("tokenizer.ggml.token_type", uint32(typeArray), uint32(typeInt32), uint64(1), int32(1)), forager.ErrCorrupt, "2 tokens, 1 types"},
		"scores":       {base(1).put("tokenizer.ggml.scores", uint32(typeArray), uint32(typeFloat32), uint64(1), float32(1)), forager.ErrCorrupt, "1 scores"},
		"id":           {base(1).put("tokenizer.ggml.eos_token_id", uint32(typeUint32), uint32(2)), forager.ErrCorrupt, "eos_token_id"},
		"kind":         {base(1).put("tokenizer.ggml.merges", uint32(typeUint32), uint32(2)), forager.ErrSchema, "merges"},
	} {
		f, err := c.b.parse()
		if err != nil {
			t.Fatal(name, err)
		}
		if _, err := f.Tokenizer(); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzParse: whatever parses can be read in full.
func FuzzParse(f *testing.F) {
	f.Add(file(2, 1).put("tokenizer.ggml.model", uint32(typeString), "llama").tensor("rows", 0, 0, 3, 2).tensor("halves", 1, 32, 4).data(40).Bytes())
	f.Add(file(1, 1).put("list", uint32(typeArray), uint32(typeString), uint64(2), "a", "").tensor("w", 8, 0, 32).data(34).Bytes())
	f.Add(file(1, 1).put(alignmentKey, uint32(typeUint32), uint32(8)).tensor("w", 12, 0, 256).data(144).Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := parse("test", bytes.NewReader(data), int64(len(data)))
		if err != nil {
			if !errors.Is(err, forager.ErrCorrupt) && !errors.Is(err, forager.ErrSchema) {
				t.Fatalf("unnamed error: %v", err)
			}
			return
		}
		for _, name := range file.Names() {
			shape, _ := file.Shape(name)
			n := 1
			for _, s := range shape {
				n *= s
			}
			if n > 4*len(data) {
				t.Fatalf("tensor %q has %d numbers in a file of %d bytes", name, n, len(data))
			}
			if err := file.ReadFloat32(make([]float32, n), name, shape...); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := file.Tokenizer(); err != nil && !errors.Is(err, forager.ErrCorrupt) && !errors.Is(err, forager.ErrSchema) && !errors.Is(err, forager.ErrNotFound) {
			t.Fatalf("unnamed error: %v", err)
		}
	})
}

func BenchmarkReadFloat32(b *testing.B) {
	for kind, e := range encodings {
		b.Run("encoding="+e.name, func(b *testing.B) {
			const n = 1 << 20
			f, err := file(1, 0).tensor("w", kind, 0, n).data(n / e.block * e.bytes).parse()
			if err != nil {
				b.Fatal(err)
			}
			out := make([]float32, n)
			b.SetBytes(4 * n)
			for b.Loop() {
				if err := f.ReadFloat32(out, "w"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
