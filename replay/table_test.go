package replay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/forager-rl/forager"
)

// Invariant 1: what was acknowledged survives kill -9. The child is this test
// binary; it inserts and commits for as long as it lives, and says so.
func TestAcknowledgedBatchesSurviveKill(t *testing.T) {
	if dir := os.Getenv("REPLAY_TEST_CHILD"); dir != "" {
		insertForEver(t, dir)
		return
	}
	dir := t.TempDir()
	acked, committed := map[uint64]bool{}, map[uint64]bool{}
	for round := range 3 {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAcknowledgedBatchesSurviveKill$")
		child.Env = append(os.Environ(), "REPLAY_TEST_CHILD="+dir, fmt.Sprint("REPLAY_TEST_FROM=", round*100000))
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			var what string
			var key uint64
			if _, err := fmt.Sscanf(lines.Text(), "%s %d", &what, &key); err != nil {
				t.Fatalf("child says %q", lines.Text())
			}
			switch what {
			case "insert":
				acked[key] = true
			case "commit":
				committed[key] = true
			}
			if n == 40+13*round {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = child.Wait() // killed

		table := open(t, dir, killConfig())
		for key := range acked {
			if !table.core.has(key) {
				t.Errorf("round %d: acknowledged group %d is lost", round, key)
			}
			if table.core.items[key] == nil && key%5 != 2 { // only those are ever committed
				t.Errorf("round %d: group %d left without a commit", round, key)
			}
		}
		for key := range committed {
			if table.core.items[key] != nil {
				t.Errorf("round %d: committed group %d is back", round, key)
			}
		}
		if err := table.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(acked) < 60 || len(committed) == 0 {
		t.Fatalf("%d acknowledged, %d committed: the test saw too little", len(acked), len(committed))
	}
}

func killConfig() Config {
	c := DefaultConfig()
	c.SegmentBytes = 20000
	return c
}

func insertForEver(t *testing.T, dir string) {
	from, err := strconv.ParseUint(os.Getenv("REPLAY_TEST_FROM"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	table := open(t, dir, killConfig())
	for key := from; key < from+100000; key++ {
		if _, _, err := table.Insert(encode(t, small(key, 0))); err != nil {
			t.Fatal(err)
		}
		fmt.Println("insert", key)
		if key%5 == 4 {
			if err := table.Commit(1, []uint64{key - 2}); err != nil {
				t.Fatal(err)
			}
			fmt.Println("commit", key-2)
		}
	}
}

// Invariant 2, also after the segment that held the group is deleted.
func TestGroupEntersOnceForEver(t *testing.T) {
	dir, config := t.TempDir(), DefaultConfig()
	config.SegmentBytes = 1 // every batch its own segment
	table := open(t, dir, config)
	for key := range uint64(3) {
		if _, _, err := table.Insert(encode(t, small(key, 0))); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.Commit(1, []uint64{1}); err != nil {
		t.Fatal(err)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "segment-*")); len(files) != 2 {
		t.Fatalf("segments on disk: %v", files)
	}
	for range 2 {
		for key := range uint64(3) {
			inserted, repeated, err := table.Insert(encode(t, small(key, 0)))
			if inserted != 0 || repeated != 1 || err != nil {
				t.Fatalf("group %d again: inserted %d, repeated %d, %v", key, inserted, repeated, err)
			}
		}
		// The learner hears about the one that will never be offered again.
		if _, drops, _ := lend(t, table, 1, 0, Query{}); !slices.Equal(drops, []Drop{{1, DropRepeated}}) {
			t.Fatalf("drops %v", drops)
		}
		if err := table.Close(); err != nil {
			t.Fatal(err)
		}
		table = open(t, dir, config)
	}
}

func TestRefusedBatchLeavesNoTrace(t *testing.T) {
	table := open(t, t.TempDir(), DefaultConfig())
	foreign := small(1, 0)
	foreign.Credit.Run = "another"
	for i := range foreign.Rollouts {
		foreign.Rollouts[i].Run = "another"
	}
	twice := small(2, 0)
	twice.Rollouts[1].ID = twice.Rollouts[0].ID
	for name, raw := range map[string][]byte{
		"foreign": encode(t, small(0, 0), foreign), "twice": encode(t, twice), "noise": []byte("noise"), "nothing": nil,
	} {
		if _, _, err := table.Insert(raw); err == nil {
			t.Errorf("batch %q is accepted", name)
		}
	}
	if s := table.Stats(); s.Groups != 0 || s.Bytes != 0 {
		t.Fatalf("stats %+v", s)
	}
}

func TestSamplersOrder(t *testing.T) {
	for sampler, check := range map[string]func([]uint64) bool{
		SampleFIFO:    func(k []uint64) bool { return slices.IsSorted(k) },
		SampleLIFO:    func(k []uint64) bool { slices.Reverse(k); return slices.IsSorted(k) },
		SampleUniform: func(k []uint64) bool { return !slices.IsSorted(k) },
	} {
		config := DefaultConfig()
		config.Sampler = sampler
		table := open(t, t.TempDir(), config)
		for key := range uint64(20) {
			if _, _, err := table.Insert(encode(t, small(key, 0))); err != nil {
				t.Fatal(err)
			}
		}
		if keys, _, _ := lend(t, table, 1, 1, everything); len(keys) != 20 || !check(keys) {
			t.Errorf("%s gives %v", sampler, keys)
		}
	}
}

// TestStalenessIsOfTheOldestToken: weights were swapped while the group was played.
func TestStalenessIsOfTheOldestToken(t *testing.T) {
	table := open(t, t.TempDir(), DefaultConfig())
	for key := range uint64(2) {
		g := group(key, 2, 4, 7)
		g.Rollouts[1].Versions = []forager.VersionSpan{
			{Span: forager.Span{Start: 1, End: 2}, Version: 6 - forager.Version(key)}, {Span: forager.Span{Start: 2, End: 4}, Version: 9},
		}
		if _, _, err := table.Insert(encode(t, g)); err != nil {
			t.Fatal(err)
		}
	}
	q := everything
	q.Version, q.MaxStaleness = 10, 4
	keys, drops, _ := lend(t, table, 1, 1, q)
	if !slices.Equal(keys, []uint64{0}) || !slices.Equal(drops, []Drop{{1, DropStale}}) {
		t.Errorf("keys %v, drops %v: the groups' oldest tokens are 4 and 5 versions old", keys, drops)
	}
}

func TestResponseIsBounded(t *testing.T) {
	table := open(t, t.TempDir(), DefaultConfig())
	raw := encode(t, small(0, 0))
	for key := range uint64(5) {
		if _, _, err := table.Insert(encode(t, small(key, 0))); err != nil {
			t.Fatal(err)
		}
	}
	q := everything
	q.MaxBytes = 2*len(raw) + len(raw)/2
	if keys, _, _ := lend(t, table, 1, 1, q); !slices.Equal(keys, []uint64{0, 1}) {
		t.Fatalf("keys %v of a bounded response", keys)
	}
	q.MaxBytes = 1 // one batch always fits
	if keys, _, _ := lend(t, table, 1, 2, q); !slices.Equal(keys, []uint64{2}) {
		t.Fatalf("keys %v of a tiny response", keys)
	}
}

func TestDamagedBatchIsReportedNotOffered(t *testing.T) {
	dir := t.TempDir()
	table := open(t, dir, DefaultConfig())
	for key := range uint64(3) {
		if _, _, err := table.Insert(encode(t, small(key, 0))); err != nil {
			t.Fatal(err)
		}
	}
	at := table.core.items[1].stored.frame
	if _, err := table.segments.list[0].file.WriteAt([]byte{0xff, 0xff, 0xff}, at.end()-20); err != nil {
		t.Fatal(err)
	}
	keys, drops, _ := lend(t, table, 1, 1, everything)
	if !slices.Equal(keys, []uint64{0, 2}) || !slices.Equal(drops, []Drop{{1, DropCorrupt}}) {
		t.Fatalf("keys %v, drops %v", keys, drops)
	}
	// A reopened table knows nothing of it, and the others are whole.
	if err := table.Close(); err != nil {
		t.Fatal(err)
	}
	table = open(t, dir, DefaultConfig())
	if keys, _, _ := lend(t, table, 2, 1, everything); !slices.Equal(keys, []uint64{0, 2}) {
		t.Fatalf("keys %v after reopening", keys)
	}
}

func TestOldEpochIsFenced(t *testing.T) {
	table := open(t, t.TempDir(), DefaultConfig())
	if _, err := table.Begin(5, 0); err != nil {
		t.Fatal(err)
	}
	_, begin := table.Begin(4, 0)
	_, sample := table.Sample(t.Context(), 4, 1, everything)
	for _, err := range []error{begin, sample, table.Commit(4, nil)} {
		if !errors.Is(err, forager.ErrFenced) {
			t.Errorf("got %v", err)
		}
	}
}

func TestJournalIsRewritten(t *testing.T) {
	dir := t.TempDir()
	table := open(t, dir, DefaultConfig())
	for key := range uint64(6) {
		if _, _, err := table.Insert(encode(t, small(key, 0))); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.Commit(7, []uint64{0, 1, 4}); err != nil {
		t.Fatal(err)
	}
	table.journal.size += journalLimit // pretend that it is long
	if err := table.tidy(); err != nil {
		t.Fatal(err)
	}
	if table.journal.size > 200 {
		t.Fatalf("rewritten journal has %d bytes", table.journal.size)
	}
	if err := table.Commit(7, []uint64{5}); err != nil {
		t.Fatal(err)
	}
	if err := table.Close(); err != nil {
		t.Fatal(err)
	}
	table = open(t, dir, DefaultConfig())
	if keys, _, _ := lend(t, table, 7, 1, everything); !slices.Equal(keys, []uint64{2, 3}) || table.epoch != 7 {
		t.Fatalf("keys %v, epoch %d", keys, table.epoch)
	}
}

func TestInsertsWaitForSamples(t *testing.T) {
	config := DefaultConfig()
	config.SampleToInsertRatio, config.RatioErrorBuffer = 1, 1
	table := open(t, t.TempDir(), config)
	for key := range uint64(2) {
		if _, _, err := table.Insert(encode(t, small(key, 0))); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := table.WaitRoom(ctx); err == nil {
		t.Fatal("there is room although nothing was sampled")
	}
	done := make(chan error)
	go func() { done <- table.WaitRoom(t.Context()) }()
	if keys, _, _ := lend(t, table, 1, 1, Query{MaxGroups: 1, MaxBytes: 1}); len(keys) != 1 {
		t.Fatalf("keys %v", keys)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestLabelsAreBounded(t *testing.T) {
	l := newLabels(10, 3)
	for key := range uint64(5) {
		l.add(label(key, 0, 0, "helpful", 1))
	}
	if l.earlyCount != 3 || l.count != 3 || l.dropped != 2 {
		t.Fatalf("%d early rollouts, %d labels, %d dropped", l.earlyCount, l.count, l.dropped)
	}
	id := forager.RolloutID("run", 4, 0)
	l.expect([]string{id})
	for turn := range 20 {
		l.add(label(4, 0, turn, "helpful", float64(turn)))
	}
	l.add(label(4, 0, 0, "helpful", 9)) // a later label replaces
	if got := l.of(id); len(got) != 8 || *got[0].Value != 9 || l.count != 10 {
		t.Fatalf("%d labels of the rollout, %d in all", len(got), l.count)
	}
	l.forget([]string{id})
	if l.count != 2 || l.earlyCount != 2 {
		t.Fatalf("%d labels, %d early rollouts after forgetting", l.count, l.earlyCount)
	}
}

func TestConfigIsChecked(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Fatal(err)
	}
	if err := (Config{}).Validate(); err == nil {
		t.Fatal("an empty configuration passes")
	}
}

// TestLateSampleRequests: a request that was sent twice, and answered, lends nothing
// when its copy comes after later ones, and does not hide the answer to the last.
func TestLateSampleRequests(t *testing.T) {
	table := open(t, t.TempDir(), DefaultConfig())
	for key := range uint64(4) {
		if _, _, err := table.Insert(encode(t, small(key, 0))); err != nil {
			t.Fatal(err)
		}
	}
	one := Query{MaxGroups: 1}
	lend(t, table, 1, 1, one)
	lend(t, table, 1, 2, one)
	if _, err := table.Sample(t.Context(), 1, 1, one); !errors.Is(err, forager.ErrStale) {
		t.Errorf("a late copy of the first request gets %v", err)
	}
	if n := table.Stats().Lent; n != 2 {
		t.Errorf("%d groups are lent, want 2", n)
	}
	if keys, _, _ := lend(t, table, 1, 2, one); !slices.Equal(keys, []uint64{1}) {
		t.Errorf("the last request again gets %v, want group 1", keys)
	}
}
