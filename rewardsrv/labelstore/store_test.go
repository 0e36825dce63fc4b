package labelstore

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/forager-rl/forager"
)

func openAt(t testing.TB, path string, log *bytes.Buffer) *Store {
	t.Helper()
	s, err := Open(path, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func value(v float64) *float64 { return &v }

func put(t testing.TB, s *Store, sequence uint64, records ...Record) {
	t.Helper()
	if err := s.Put(sequence, records); err != nil {
		t.Fatal(err)
	}
}

// state is all that a store says.
func state(t *testing.T, s *Store) string {
	t.Helper()
	sequence, err := s.Sequence()
	if err != nil {
		t.Fatal(err)
	}
	n, err := s.Len()
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("sequence %d, %d keys", sequence, n)
	err = s.Each(func(r Record) error {
		v := "none"
		if r.Value != nil {
			v = fmt.Sprint(*r.Value)
		}
		text += fmt.Sprintf("; %s %s %q %s %s", r.Key, v, r.Rationale, r.Judge, r.Rubric)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestStore(t *testing.T) {
	path, log := filepath.Join(t.TempDir(), "sub", "labels.db"), &bytes.Buffer{}
	s := openAt(t, path, log)
	if got := state(t, s); got != "sequence 0, 0 keys" {
		t.Error(got)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	put(t, s, 3, Record{Key: "a", Value: value(1), Rationale: "why", Judge: "j", Rubric: "v1", Time: at}, Record{Key: "b"})
	put(t, s, 4, Record{Key: "a", Value: value(0)}, Record{Key: "b", Value: value(0.5)}, Record{Key: "a"})
	const want = `sequence 4, 2 keys; a 1 "why" j v1; b 0.5 ""  `
	if got := state(t, s); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	r, found, err := s.Get("a")
	if err != nil || !found || !r.Time.Equal(at) || r.Key != "a" {
		t.Errorf("%+v %v %v", r, found, err)
	}
	if _, found, err := s.Get("c"); found || err != nil {
		t.Errorf("unseen key: %v %v", found, err)
	}
	if _, err := Open(path, slog.Default()); !errors.Is(err, forager.ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	if err := s.PutTrainer(4, []byte("weights")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}

	s = openAt(t, path, log)
	if got := state(t, s); got != want {
		t.Errorf("after a restart: %s", got)
	}
	if sequence, data, err := s.Trainer(); sequence != 4 || string(data) != "weights" || err != nil {
		t.Errorf("trainer: %d %q %v", sequence, data, err)
	}
	if err := s.Reset(); err != nil {
		t.Fatal(err)
	}
	if _, data, _ := s.Trainer(); state(t, s) != "sequence 0, 0 keys" || data != nil {
		t.Errorf("after the reset: %s, trainer %q", state(t, s), data)
	}
	if log.Len() > 0 {
		t.Error(log)
	}
}

// filled writes an index that was not closed in order, as a killed process
// leaves it, and gives its bytes.
func filled(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "labels.db")
	s := openAt(t, path, &bytes.Buffer{})
	for i := range uint64(20) {
		var records []Record
		for j := range 50 {
			records = append(records, Record{Key: forager.Digest(fmt.Sprint(i, j)), Value: value(1), Rationale: strings.Repeat("x", 50)})
		}
		put(t, s, i+1, records...)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestKilledProcessLosesNothing(t *testing.T) {
	path, log := filepath.Join(t.TempDir(), "labels.db"), &bytes.Buffer{}
	if err := os.WriteFile(path, filled(t), 0o644); err != nil {
		t.Fatal(err)
	}
	s := openAt(t, path, log)
	if n, err := s.Len(); n != 1000 || err != nil || log.Len() > 0 {
		t.Errorf("%d labels, %v\n%s", n, err, log)
	}
}

// TestDamage: whatever became of the file, the store opens. Either nothing that
// it holds was touched, or the file is set aside and the store is empty.
func TestDamage(t *testing.T) {
	whole := filled(t)
	foreign := func(t *testing.T) []byte {
		path := filepath.Join(t.TempDir(), "other.db")
		db, err := bbolt.Open(path, 0o644, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err })
		if err = errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}(t)
	cases := map[string][]byte{
		"foreign": foreign, "text": []byte("hello"), "half": whole[:len(whole)/2], "head only": whole[:9000], "zeros": make([]byte, 1<<16),
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range 40 {
		damaged := bytes.Clone(whole)
		start := rng.IntN(len(damaged) - 4096)
		for j := range damaged[start : start+4096] {
			damaged[start+j] = byte(rng.Uint32())
		}
		cases[fmt.Sprint("page ", i)] = damaged
	}
	for name, data := range cases {
		t.Run(name, func(t *testing.T) {
			path, log := filepath.Join(t.TempDir(), "labels.db"), &bytes.Buffer{}
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
			s := openAt(t, path, log)
			n, err := s.Len()
			if err != nil {
				t.Fatal(err)
			}
			if aside := strings.Contains(log.String(), "set aside"); aside && n != 0 || !aside && n != 1000 {
				t.Errorf("%d labels, set aside: %v", n, aside)
			}
			put(t, s, 1, Record{Key: "new", Value: value(1)})
			if _, found, err := s.Get("new"); !found || err != nil {
				t.Errorf("new label: %v %v", found, err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	s := openAt(b, filepath.Join(b.TempDir(), "labels.db"), &bytes.Buffer{})
	var records []Record
	for i := range 100_000 {
		records = append(records, Record{Key: forager.Digest(fmt.Sprint(i)), Value: value(1), Rationale: "result 1 is a gold passage", Judge: "rule", Rubric: "sha256:x"})
	}
	put(b, s, 1, records...)
	for i := 0; b.Loop(); i++ {
		if _, found, err := s.Get(records[i*7919%len(records)].Key); !found || err != nil {
			b.Fatal(found, err)
		}
	}
}

func BenchmarkPut(b *testing.B) {
	s := openAt(b, filepath.Join(b.TempDir(), "labels.db"), &bytes.Buffer{})
	for i := 0; b.Loop(); i++ {
		var records []Record
		for j := range 64 {
			records = append(records, Record{Key: forager.Digest(fmt.Sprint(i, j)), Value: value(1), Rationale: "result 1 is a gold passage", Judge: "rule", Rubric: "sha256:x"})
		}
		put(b, s, uint64(i), records...)
	}
}
