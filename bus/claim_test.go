package bus

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

// TestOneWins: of many holders that claim many keys at once, each key has one.
func TestOneWins(t *testing.T) {
	const holders, keys = 3, 200
	first := open(t, nil)
	all := []*Bus{first}
	for len(all) < holders {
		all = append(all, join(t, first, nil))
	}
	var wins [keys]atomic.Int32
	var group sync.WaitGroup
	for _, b := range all {
		group.Go(func() {
			for k := range keys {
				revision, won, err := b.Claim(t.Context(), fmt.Sprint("k", k), 0)
				if err != nil || revision == 0 {
					t.Errorf("claim: revision %d, %v", revision, err)
				}
				if won {
					wins[k].Add(1)
				}
			}
		})
	}
	group.Wait()
	for k := range keys {
		if n := wins[k].Load(); n != 1 {
			t.Fatalf("key %d has %d holders", k, n)
		}
	}
}

func TestClaimIsTakenOverByRevision(t *testing.T) {
	a := open(t, nil)
	b, c := join(t, a, nil), join(t, a, nil)
	claim := func(who *Bus, over uint64) (uint64, bool) {
		t.Helper()
		revision, won, err := who.Claim(t.Context(), "key", over)
		if err != nil {
			t.Fatal(err)
		}
		return revision, won
	}
	mine, won := claim(a, 0)
	if again, same := claim(a, 0); !won || !same || again != mine {
		t.Fatalf("the holder asks again: revision %d, then %d", mine, again)
	}
	seen, won := claim(b, 0)
	if won || seen != mine {
		t.Fatalf("a held claim: won %v, revision %d, want %d", won, seen, mine)
	}
	taken, won := claim(b, seen)
	if !won || taken == mine {
		t.Fatalf("taken over: %v, revision %d", won, taken)
	}
	if standing, won := claim(c, seen); won || standing != taken {
		t.Fatalf("taken over twice: %v, revision %d", won, standing)
	}
	if err := a.Release(t.Context(), "key", mine); err != nil { // no longer its own
		t.Fatal(err)
	}
	if standing, won := claim(c, 0); won || standing != taken {
		t.Fatalf("the release of a lost claim hit its new holder: %v, revision %d", won, standing)
	}
	if err := b.Release(t.Context(), "key", taken); err != nil {
		t.Fatal(err)
	}
	if gone, won := claim(c, taken); won || gone != 0 {
		t.Fatalf("over a released claim: %v, revision %d", won, gone)
	}
	if _, won := claim(c, 0); !won {
		t.Fatal("a released key cannot be claimed")
	}
	if _, _, err := a.Claim(t.Context(), "no.token", 0); err == nil {
		t.Error("a key that is no part of a subject passes")
	}
}

func BenchmarkClaim(b *testing.B) {
	client := join(b, open(b, nil), nil)
	for i := 0; b.Loop(); i++ {
		if _, won, err := client.Claim(b.Context(), fmt.Sprint("key-", i), 0); err != nil || !won {
			b.Fatal(won, err)
		}
	}
}
