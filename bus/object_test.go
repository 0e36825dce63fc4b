package bus

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/forager-rl/forager"
)

// stored counts the messages that the store of objects holds.
func stored(t *testing.T, b *Bus) uint64 {
	t.Helper()
	stream, err := b.js.Stream(t.Context(), objects(b.names.bucket("")))
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().State.Msgs
}

func noise(n int) []byte {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(data) //nolint:errcheck // never fails
	return data
}

// Objects of all sizes come back, and a newer one leaves nothing of the older.
func TestObjectSizes(t *testing.T) {
	b := open(t, nil)
	for size, chunks := range map[int]uint64{0: 0, 1: 1, chunkBytes - 1: 1, chunkBytes: 1, chunkBytes + 1: 2, 40 * chunkBytes: 40} {
		want := noise(size)
		if err := b.PutObject(t.Context(), "x", want); err != nil {
			t.Fatal(err)
		}
		if got, err := b.GetObject(t.Context(), "x"); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes came back as %d: %v", size, len(got), err)
		}
		if n := stored(t, b); n != chunks+1 {
			t.Errorf("%d bytes are %d messages, want %d and the description", size, n, chunks)
		}
	}
}

// A server that takes small messages alone gets small chunks.
func TestObjectOnASmallServer(t *testing.T) {
	b := open(t, func(c *Config) { c.MaxPayload = 64 << 10 })
	want := noise(200 << 10)
	if err := b.PutObject(t.Context(), "x", want); err != nil {
		t.Fatal(err)
	}
	if got, err := b.GetObject(t.Context(), "x"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back: %v", len(got), err)
	}
}

// A put that finds the store full leaves what was there, and nothing else.
func TestFullStoreIsLeftAsItWas(t *testing.T) {
	b := open(t, func(c *Config) { c.MaxObjects = 3*chunkBytes + chunkBytes/2 })
	want := noise(2 * chunkBytes)
	if err := b.PutObject(t.Context(), "x", want); err != nil {
		t.Fatal(err)
	}
	before := stored(t, b)
	for _, name := range []string{"x", "y"} { // of which the first chunk fits
		if err := b.PutObject(t.Context(), name, noise(2*chunkBytes)); !errors.Is(err, forager.ErrFull) {
			t.Errorf("%s: got %v, want ErrFull", name, err)
		}
		if n := stored(t, b); n != before {
			t.Errorf("%s: %d messages, want %d", name, n, before)
		}
	}
	if got, err := b.GetObject(t.Context(), "x"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back: %v", len(got), err)
	}
}

// An object of another digest or size than the manifest says is not read.
func TestObjectOfADigest(t *testing.T) {
	b := open(t, nil)
	want := noise(chunkBytes + 1)
	if err := b.PutObject(t.Context(), "x", want); err != nil {
		t.Fatal(err)
	}
	sum, other := sha256.Sum256(want), sha256.Sum256(nil)
	digest, size := "sha256:"+hex.EncodeToString(sum[:]), int64(len(want))
	if got, err := b.GetObjectOf(t.Context(), "x", size, digest); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back: %v", len(got), err)
	}
	for name, of := range map[string]struct {
		size   int64
		digest string
	}{
		"other digest": {size, "sha256:" + hex.EncodeToString(other[:])},
		"other size":   {size - 1, digest},
		"no size":      {-1, digest},
		"no digest":    {size, ""},
		"short digest": {size, "sha256:00"},
		"other form":   {size, digest[len("sha256:"):]},
	} {
		if got, err := b.GetObjectOf(t.Context(), "x", of.size, of.digest); !errors.Is(err, forager.ErrCorrupt) {
			t.Errorf("%s: %d bytes, %v, want ErrCorrupt", name, len(got), err)
		}
	}
}

func TestDamagedObject(t *testing.T) {
	b := open(t, nil)
	data := noise(3 * chunkBytes)
	if err := b.putChunks(t.Context(), chunks(b.names.bucket(""), "n"), data, chunkBytes); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]uint64{"digest": 3 * chunkBytes, "longer": 2 * chunkBytes} {
		info := jetstream.ObjectInfo{
			ObjectMeta: jetstream.ObjectMeta{Name: name}, Bucket: b.names.bucket(""), NUID: "n", Size: size, Chunks: 3,
			Digest: "SHA-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=", // of nothing
		}
		if err := b.putInfo(t.Context(), &info); err != nil {
			t.Fatal(err)
		}
		if got, err := b.GetObject(t.Context(), name); !errors.Is(err, forager.ErrCorrupt) {
			t.Errorf("%s: %d bytes, %v, want ErrCorrupt", name, len(got), err)
		}
	}
}
