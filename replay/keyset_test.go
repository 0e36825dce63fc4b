package replay

import (
	"maps"
	"slices"
	"testing"
)

func FuzzKeysetIsASet(f *testing.F) {
	f.Add([]byte{5, 3, 4, 5, 9, 8, 0, 1, 2})
	f.Fuzz(func(t *testing.T, adds []byte) {
		var s keyset
		want := map[uint64]bool{}
		for _, b := range adds {
			s.add(uint64(b))
			want[uint64(b)] = true
		}
		if got := s.keys(); !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
			t.Fatalf("keys %v, want %v", got, want)
		}
		for i := 1; i < len(s); i++ {
			if s[i-1].To >= s[i].From {
				t.Fatalf("ranges touch: %v", s)
			}
		}
		for k := range uint64(256) {
			if s.has(k) != want[k] {
				t.Fatalf("has(%d) is %v", k, s.has(k))
			}
		}
		for _, k := range s.from(100).keys() {
			if k < 100 || !want[k] {
				t.Fatalf("from(100) holds %d", k)
			}
		}
	})
}

// The limiter of Reverb's documentation: 2 samples per insert, a buffer of 3.
func TestLimiterKeepsTheRatio(t *testing.T) {
	l := limiter{minSize: 2, ratio: 2, buffer: 3}
	offered := 0
	inserts := func() int {
		n := 0
		for l.mayInsert(offered) {
			l.inserts++
			offered++
			n++
		}
		return n
	}
	samples := func() int {
		n := 0
		for l.maySample(offered) {
			l.samples++
			n++
		}
		return n
	}
	if l.maySample(1) {
		t.Error("samples below the minimal size")
	}
	if n := inserts(); n != 3 { // 3·2 − 0 ≤ 2·2 + 3 < 4·2
		t.Errorf("%d inserts at first, want 3", n)
	}
	if n := samples(); n != 5 { // 3·2 − 5 ≥ 2·2 − 3 > 3·2 − 6
		t.Errorf("%d samples then, want 5", n)
	}
	if n := inserts(); n != 3 { // 6·2 − 5 ≤ 7
		t.Errorf("%d inserts then, want 3", n)
	}
	if off := (limiter{minSize: 1}); !off.mayInsert(1e6) || !off.maySample(1) {
		t.Error("a limiter without ratio limits")
	}
}
