package rewardmodel

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/forager-rl/forager"
)

// taught is a trainer that has seen a few labels.
func taught(t testing.TB, kind Kind) *Trainer {
	t.Helper()
	config := DefaultConfig()
	config.Kind = kind
	trainer, err := NewTrainer(config, 3)
	if err != nil {
		t.Fatal(err)
	}
	teach(trainer, rand.New(rand.NewPCG(1, 1)), 40)
	return trainer
}

func teach(trainer *Trainer, rng *rand.Rand, labels int) {
	for i := range labels {
		trainer.Add(invented(rng), float64(i%2))
		trainer.AddPair(invented(rng), invented(rng), float64(i%3)/2)
	}
	trainer.Train(labels)
}

func TestModelSurvivesEncoding(t *testing.T) {
	for _, kind := range []Kind{Classification, Ranking} {
		model := taught(t, kind).Snapshot()
		data := model.Encode()
		again, err := Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.Encode(), data) {
			t.Errorf("%s: another model after decoding", kind)
		}
		e := invented(rand.New(rand.NewPCG(9, 9)))
		if a, b := model.Score(e), again.Score(e); a != b {
			t.Errorf("%s: score %v before, %v after", kind, a, b)
		}
		if again.Kind() != kind || again.Version() != 32 || again.Labels() != 40 {
			t.Errorf("%s: kind %s, version %d, %d labels", kind, again.Kind(), again.Version(), again.Labels())
		}
	}
}

// TestRestoreContinues: a trainer that was stopped and restored learns exactly
// what it would have learned.
func TestRestoreContinues(t *testing.T) {
	for _, kind := range []Kind{Classification, Ranking} {
		one := taught(t, kind)
		two, err := Restore(one.config, one.State())
		if err != nil {
			t.Fatal(err)
		}
		for _, trainer := range []*Trainer{one, two} {
			teach(trainer, rand.New(rand.NewPCG(2, 2)), 10)
		}
		if !bytes.Equal(one.State(), two.State()) || !bytes.Equal(one.Snapshot().Encode(), two.Snapshot().Encode()) {
			t.Errorf("%s: the restored trainer went another way", kind)
		}
		if one.Stats() != two.Stats() || one.Stats().Steps != 64 {
			t.Errorf("%s: %+v, restored %+v", kind, one.Stats(), two.Stats())
		}
	}
}

func TestRestoreRefusesAnotherKind(t *testing.T) {
	config := DefaultConfig()
	config.Kind = Ranking
	if _, err := Restore(config, taught(t, Classification).State()); !errors.Is(err, forager.ErrSchema) {
		t.Errorf("got %v", err)
	}
}

func TestRestoreShrinksToTheLimit(t *testing.T) {
	trainer := taught(t, Ranking)
	config := trainer.config
	config.MaxExamples = 7
	small, err := Restore(config, trainer.State())
	if err != nil {
		t.Fatal(err)
	}
	if s := small.Stats(); s.Stored != 7 || s.Labels != 40 || len(small.examples.readings) != 14 {
		t.Errorf("%+v, %d readings", s, len(small.examples.readings))
	}
	teach(small, rand.New(rand.NewPCG(2, 2)), 10)
}

// TestDecodeRefuses: no byte may be damaged, cut off or foreign without an error.
func TestDecodeRefuses(t *testing.T) {
	model := taught(t, Classification).Snapshot().Encode()
	state := taught(t, Classification).State()
	damaged := func(at int) []byte {
		data := bytes.Clone(model)
		data[at] ^= 1
		return data
	}
	newer := bytes.Clone(model[:len(model)-sha256.Size])
	newer[len(magic)] = schema + 1
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"nothing":        {nil, forager.ErrCorrupt},
		"cut in magic":   {model[:5], forager.ErrCorrupt},
		"cut in header":  {model[:20], forager.ErrCorrupt},
		"cut":            {model[:len(model)-1], forager.ErrCorrupt},
		"longer":         {append(bytes.Clone(model), 0), forager.ErrCorrupt},
		"first number":   {damaged(100), forager.ErrCorrupt},
		"digest":         {damaged(len(model) - 1), forager.ErrCorrupt},
		"magic":          {damaged(0), forager.ErrSchema},
		"foreign":        {[]byte("PK\x03\x04 something else altogether, and long enough to be checked"), forager.ErrSchema},
		"newer schema":   {sealed(newer), forager.ErrSchema},
		"another object": {state, forager.ErrSchema},
		"too long":       {sealed(append(bytes.Clone(model[:len(model)-sha256.Size]), 0)), forager.ErrCorrupt},
		"too short":      {sealed(bytes.Clone(model[:len(model)-sha256.Size-1])), forager.ErrCorrupt},
	} {
		if _, err := Decode(c.data); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	if _, err := Restore(DefaultConfig(), model); !errors.Is(err, forager.ErrSchema) {
		t.Errorf("restore from a model: %v", err)
	}
}

func sealed(body []byte) []byte { return (&encoder{out: body}).seal() }

// FuzzDecode: whatever is written over the contents, and wherever they end,
// decoding gives a model that works or one of the two errors. Digests are made
// right, so that contents are reached.
func FuzzDecode(f *testing.F) {
	trainer := taught(f, Ranking)
	e := invented(rand.New(rand.NewPCG(9, 9)))
	config := trainer.config
	config.Steps, config.BatchSize = 1, 4
	model, state := trainer.Snapshot().Encode(), trainer.State()
	for _, at := range []uint32{8, 12, 13, 26, 100, 70_000} {
		f.Add(at, []byte{0xff, 0xff, 0xff, 0xff}, uint32(0))
	}
	f.Add(uint32(0), []byte{}, uint32(1000))
	f.Fuzz(func(t *testing.T, at uint32, over []byte, missing uint32) {
		spoilt := func(data []byte) []byte {
			body := bytes.Clone(data[:len(data)-sha256.Size])
			copy(body[int(at)%len(body):], over)
			return sealed(body[:len(body)-int(missing)%len(body)])
		}
		data := spoilt(model)
		if decoded, err := Decode(data); err == nil {
			decoded.Score(e)
			if !bytes.Equal(decoded.Encode(), data) {
				t.Error("another object after decoding")
			}
		} else if !errors.Is(err, forager.ErrCorrupt) && !errors.Is(err, forager.ErrSchema) {
			t.Errorf("decode: %v", err)
		}
		if restored, err := Restore(config, spoilt(state)); err == nil {
			restored.Train(1)
		} else if !errors.Is(err, forager.ErrCorrupt) && !errors.Is(err, forager.ErrSchema) {
			t.Errorf("restore: %v", err)
		}
	})
}
