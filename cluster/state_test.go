package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/forager-rl/forager"
)

func at(seconds int) time.Time { return time.Unix(int64(1_800_000_000+seconds), 0).UTC() }

func manifest(version forager.Version, epoch uint64, digest string) forager.Manifest {
	return forager.Manifest{Run: "r", Version: version, Epoch: epoch, Object: "w", Digest: digest}
}

// step is one command of a script and the error it must give.
type step struct {
	cmd  Command
	want error // nil, a sentinel, or errAny
}

var errAny = errors.New("any error")

func setRun(id, digest string) Command { return Command{SetRun: &SetRun{Run{id, digest}}} }
func acquire(sec int, holder string) Command {
	return Command{Now: at(sec), AcquireLease: &AcquireLease{holder, 10 * time.Second}}
}
func renew(sec int, holder string, epoch uint64) Command {
	return Command{Now: at(sec), RenewLease: &RenewLease{holder, epoch}}
}
func rebase(sec int, extend bool) Command {
	return Command{Now: at(sec), RebaseLease: &RebaseLease{extend}}
}
func release(holder string, epoch uint64) Command {
	return Command{ReleaseLease: &ReleaseLease{holder, epoch}}
}
func publish(v forager.Version, epoch uint64, digest string) Command {
	return Command{Now: at(99), PublishManifest: &PublishManifest{manifest(v, epoch, digest)}}
}

// again is a checkpoint of a step whose weights were published under a later version.
func again(step uint64, version forager.Version, epoch uint64) Command {
	c := checkpoint(step, epoch)
	c.AddCheckpoint.Checkpoint.Version = version
	return c
}

func checkpoint(step, epoch uint64) Command {
	return Command{AddCheckpoint: &AddCheckpoint{epoch, Checkpoint{Step: step, Version: forager.Version(step), Path: "p", Digest: fmt.Sprint(step, epoch)}}}
}
func TestStateApply(t *testing.T) {
	for name, script := range map[string][]step{
		"run is set once": {
			{setRun("", ""), errAny},
			{setRun("r", "d"), nil},
			{setRun("r", "d"), nil},
			{setRun("other", "d"), ErrOtherRun},
			{setRun("r", "other"), ErrOtherRun},
		},
		"lease passes on when it has run out": {
			{acquire(0, "a"), nil},
			{acquire(9, "b"), forager.ErrInUse},
			{renew(9, "a", 1), nil},
			{acquire(18, "b"), forager.ErrInUse},
			{acquire(19, "b"), nil},
			{renew(19, "a", 1), forager.ErrFenced},
			{release("a", 1), forager.ErrFenced},
			{renew(19, "b", 2), nil},
		},
		"lease passes on when it is released": {
			{acquire(0, "a"), nil},
			{release("b", 1), forager.ErrFenced},
			{release("a", 1), nil},
			{release("a", 1), nil},
			{renew(1, "a", 1), forager.ErrFenced},
			{acquire(1, "b"), nil},
			{release("a", 1), forager.ErrFenced},
		},
		"the same holder gets a new epoch": {
			{acquire(0, "a"), nil},
			{acquire(1, "a"), nil},
			{renew(2, "a", 1), forager.ErrFenced},
			{renew(2, "a", 2), nil},
		},
		"a lease that ran out is renewed while nobody took it": {
			{acquire(0, "a"), nil},
			{renew(50, "a", 1), nil},
			{acquire(59, "b"), forager.ErrInUse},
		},
		"bad leases": {
			{acquire(0, ""), errAny},
			{Command{AcquireLease: &AcquireLease{"a", 0}}, errAny},
			{Command{AcquireLease: &AcquireLease{"a", 2 * time.Hour}}, errAny},
			{renew(0, "", 0), forager.ErrFenced},
		},
		"a new leader's clock is an hour ahead": {
			{acquire(0, "a"), nil},
			{rebase(3600, true), nil},
			{acquire(3609, "b"), forager.ErrInUse},
			{renew(3609, "a", 1), nil},
			{acquire(3619, "b"), nil},
		},
		"a new leader's clock is an hour behind": {
			{acquire(3600, "a"), nil},
			{rebase(0, true), nil},
			{acquire(9, "b"), forager.ErrInUse},
			{acquire(10, "b"), nil},
		},
		"a node alone keeps the lease's time, and at most its length": {
			{acquire(0, "a"), nil},
			{rebase(5, false), nil},
			{acquire(9, "b"), forager.ErrInUse},
			{acquire(10, "b"), nil},
			{rebase(-3600, false), nil},
			{acquire(-3590, "c"), nil},
		},
		"a free lease stays free": {
			{acquire(0, "a"), nil},
			{release("a", 1), nil},
			{rebase(1, true), nil},
			{acquire(1, "b"), nil},
		},
		"publishing needs run and epoch": {
			{publish(0, 0, "x"), ErrOtherRun},
			{setRun("r", ""), nil},
			{publish(0, 0, "x"), forager.ErrFenced},
			{acquire(0, "a"), nil},
			{publish(0, 1, ""), errAny},
			{publish(0, 2, "x"), forager.ErrFenced},
			{publish(0, 1, "x"), nil}, // at second 99: the lease has run out and is still the newest
			{acquire(100, "b"), nil},
			{publish(1, 1, "y"), forager.ErrFenced},
			{publish(1, 2, "y"), nil},
			{release("b", 2), nil},
			{publish(2, 2, "z"), forager.ErrFenced},
		},
		"versions never go back": {
			{setRun("r", ""), nil},
			{acquire(0, "a"), nil},
			{publish(3, 1, "three"), nil},
			{publish(2, 1, "two"), forager.ErrStale},
			{publish(3, 1, "other"), forager.ErrStale},
			{publish(3, 1, "three"), nil}, // a retry
			{acquire(1, "a"), nil},        // killed and resumed from checkpoint 3
			{publish(3, 2, "three"), nil},
			{publish(3, 2, "other"), forager.ErrStale},
			{publish(4, 2, "four"), nil},
		},
		"checkpoints are fenced": {
			{checkpoint(1, 0), forager.ErrFenced},
			{acquire(0, "a"), nil},
			{checkpoint(1, 1), nil},
			{Command{AddCheckpoint: &AddCheckpoint{1, Checkpoint{Step: 2}}}, errAny},
			{acquire(1, "a"), nil},
			{checkpoint(2, 1), forager.ErrFenced},
			{checkpoint(2, 2), nil},
		},
		"late requests do not take a checkpoint back": { // sent again to another node, and to this one before
			{acquire(0, "a"), nil},
			{checkpoint(25, 1), nil},
			{checkpoint(26, 1), nil},
			{checkpoint(25, 1), forager.ErrStale},
			{checkpoint(26, 1), nil}, // a retry
			{again(26, 27, 1), nil},  // of weights that got another version
			{checkpoint(26, 1), forager.ErrStale},
			{acquire(1, "a"), nil},
			{checkpoint(25, 2), nil}, // resumed from an older one
			{checkpoint(24, 2), forager.ErrStale},
		},
		"unknown commands": {
			{Command{Now: at(0)}, forager.ErrSchema},
			{Command{SetRun: &SetRun{}, ReleaseLease: &ReleaseLease{}}, forager.ErrSchema},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var s State
			for i, st := range script {
				before := s.Clone()
				_, err := s.Apply(st.cmd)
				switch {
				case st.want == nil && err != nil, st.want != nil && err == nil:
					t.Fatalf("step %d: got error %v, want %v", i, err, st.want)
				case st.want != nil && !errors.Is(st.want, errAny) && !errors.Is(err, st.want):
					t.Fatalf("step %d: got error %v, want %v", i, err, st.want)
				case err != nil && !reflect.DeepEqual(before, s):
					t.Fatalf("step %d: a refused command changed the state", i)
				}
			}
		})
	}
}

func TestAcquireTellsManifest(t *testing.T) {
	var s State
	for _, c := range []Command{setRun("r", ""), acquire(0, "a"), publish(7, 1, "x")} {
		if _, err := s.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	r, err := s.Apply(acquire(1, "a"))
	if err != nil || r.Lease.Epoch != 2 || r.Manifest == nil || r.Manifest.Version != 7 {
		t.Fatalf("got %+v, %v", r, err)
	}
	r.Lease.Epoch, r.Manifest.Version = 100, 100
	if s.Lease.Epoch != 2 || s.Manifest.Version != 7 {
		t.Fatal("the result shares memory with the state")
	}
}

func TestCheckpointListIsBounded(t *testing.T) {
	var s State
	apply := func(c Command) {
		t.Helper()
		if _, err := s.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	apply(acquire(0, "a"))
	for i := range uint64(MaxCheckpoints + 5) {
		apply(checkpoint(i, 1))
	}
	if n := len(s.Checkpoints); n != MaxCheckpoints || s.Checkpoints[n-1].Step != MaxCheckpoints+4 {
		t.Fatalf("%d checkpoints, the newest of step %d", n, s.Checkpoints[n-1].Step)
	}
	apply(acquire(1, "a"))
	apply(checkpoint(10, 2)) // resumed from an older one: the later records are of a left history
	if n := len(s.Checkpoints); s.Checkpoints[n-1] != (Checkpoint{2, 10, 10, "p", "10 2"}) || s.Checkpoints[n-2].Step != 9 {
		t.Fatalf("after going back: %+v", s.Checkpoints)
	}
}

// randomCommand draws from few values, so that commands meet.
func randomCommand(r *rand.Rand, sec int) Command {
	holder := string(rune('a' + r.IntN(3)))
	epoch := uint64(r.IntN(8))
	c := Command{Now: at(sec)}
	switch r.IntN(8) {
	case 7:
		c.RebaseLease = &RebaseLease{Extend: r.IntN(2) == 0}
	case 0:
		c.SetRun = &SetRun{Run{"r", string(rune('d' + r.IntN(2)))}}
	case 1:
		c.AcquireLease = &AcquireLease{holder, time.Duration(r.IntN(9)) * time.Second}
	case 2:
		c.RenewLease = &RenewLease{holder, epoch}
	case 3:
		c.ReleaseLease = &ReleaseLease{holder, epoch}
	case 4, 5:
		c.PublishManifest = &PublishManifest{manifest(forager.Version(r.IntN(12)), epoch, string(rune('x'+r.IntN(2))))}
	default:
		c.AddCheckpoint = &AddCheckpoint{epoch, Checkpoint{Step: uint64(r.IntN(40)), Version: forager.Version(r.IntN(3)), Path: "p", Digest: "d"}}
	}
	return c
}

// FuzzState runs random command sequences and checks what must hold in each of
// them, whatever the commands were.
func FuzzState(f *testing.F) {
	for seed := range uint64(50) {
		f.Add(seed, uint8(200))
	}
	f.Fuzz(func(t *testing.T, seed uint64, length uint8) {
		r := rand.New(rand.NewPCG(seed, 1))
		var s, replica State
		sec := 0
		for i := range int(length) {
			sec += r.IntN(5) - 1 // clocks of successive leaders differ: time may go back
			cmd := randomCommand(r, sec)
			before := s.Clone()
			_, err := s.Apply(cmd)
			checkStep(t, before, s, cmd, err)

			// A replica sees the bytes of the log, and is restored half-way.
			data, encodeErr := cmd.encode()
			if encodeErr != nil {
				t.Fatal(encodeErr)
			}
			decoded, decodeErr := decodeCommand(data)
			if decodeErr != nil {
				t.Fatal(decodeErr)
			}
			if _, replicaErr := replica.Apply(decoded); fmt.Sprint(replicaErr) != fmt.Sprint(err) {
				t.Fatalf("replica answers %v, not %v", replicaErr, err)
			}
			if i == int(length)/2 {
				replica = restored(t, replica)
			}
		}
		a, errA := s.Digest()
		b, errB := replica.Digest()
		if errA != nil || errB != nil || a != b {
			t.Fatalf("replicas differ: %s %v, %s %v", a, errA, b, errB)
		}
		if !reflect.DeepEqual(restored(t, s), s) {
			t.Fatal("a restored snapshot differs from its state")
		}
	})
}

// checkStep holds the invariants of one step.
func checkStep(t *testing.T, before, after State, cmd Command, err error) {
	t.Helper()
	if err != nil && !reflect.DeepEqual(before, after) {
		t.Fatalf("refused command changed the state: %v", err)
	}
	if after.Lease.Epoch < before.Lease.Epoch {
		t.Fatal("the epoch went back")
	}
	if cmd.AcquireLease != nil && err == nil && after.Lease.Epoch != before.Lease.Epoch+1 {
		t.Fatal("a grant without a new epoch")
	}
	if before.Manifest != nil && (after.Manifest == nil || after.Manifest.Version < before.Manifest.Version) {
		t.Fatal("the version went back")
	}
	if !reflect.DeepEqual(before.Manifest, after.Manifest) {
		if after.Manifest.Epoch != before.Lease.Epoch || before.Lease.Holder == "" {
			t.Fatal("published under an old epoch or without a lease")
		}
		if b := before.Manifest; b != nil && b.Version == after.Manifest.Version && b.Digest != after.Manifest.Digest {
			t.Fatal("one version with two weights")
		}
	}
	if before.Run != (Run{}) && after.Run != before.Run {
		t.Fatal("the run changed")
	}
	for i := 1; i < len(after.Checkpoints); i++ {
		if after.Checkpoints[i-1].Step >= after.Checkpoints[i].Step {
			t.Fatal("checkpoints out of order")
		}
	}
	if len(after.Checkpoints) > MaxCheckpoints {
		t.Fatal("too many checkpoints")
	}
	if n, m := len(before.Checkpoints), len(after.Checkpoints); n > 0 {
		old, newest := before.Checkpoints[n-1], after.Checkpoints[m-1]
		if newest.Epoch < old.Epoch || newest.Epoch == old.Epoch && (newest.Step < old.Step || newest.Step == old.Step && newest.Version < old.Version) {
			t.Fatalf("the newest checkpoint went back from %+v to %+v", old, newest)
		}
	}
}

// restored writes and reads a snapshot of a state.
func restored(t *testing.T, s State) State {
	t.Helper()
	data, err := json.Marshal(snapshot{Schema: snapshotSchema, State: s})
	if err != nil {
		t.Fatal(err)
	}
	f := fsm{log: slog.New(slog.DiscardHandler)}
	if err := f.Restore(io.NopCloser(bytes.NewReader(data))); err != nil {
		t.Fatal(err)
	}
	return f.read()
}

func TestRestoreRefuses(t *testing.T) {
	f := fsm{log: slog.New(slog.DiscardHandler), state: State{Run: Run{ID: "r"}}}
	for text, want := range map[string]error{
		`{"schema":1,"state":{"run":{"id":"x"`:     forager.ErrCorrupt,
		`{"schema":2,"state":{"run":{"id":"x"}}}`:  forager.ErrSchema,
		`{"schema":2,"unheard_of":true}`:           forager.ErrSchema,
		`{"schema":1,"state":{"unheard_of":true}}`: forager.ErrCorrupt,
	} {
		if err := f.Restore(io.NopCloser(bytes.NewReader([]byte(text)))); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", text, err, want)
		}
	}
	if f.state.Run.ID != "r" {
		t.Error("a refused snapshot changed the state")
	}
}

// TestLogsOfEarlierVersions: what earlier versions wrote about services is
// ignored, in the log and in snapshots, and the rest is read.
func TestLogsOfEarlierVersions(t *testing.T) {
	var f fsm
	for _, entry := range []string{
		`{"now":"2026-01-01T00:00:00Z","set_run":{"run":{"id":"r","config_digest":"d"}}}`,
		`{"now":"2026-01-01T00:00:00Z","register":{"service":{"name":"retriever","instance":"h-1","role":"retriever","address":"http://h:1","registered":"0001-01-01T00:00:00Z","expires":"0001-01-01T00:00:00Z"},"ttl":0}}`,
		`{"now":"2026-01-01T00:00:01Z","deregister":{"name":"retriever","instance":"h-1"}}`,
		`{"now":"2026-01-01T00:00:02Z","expire_services":{}}`,
	} {
		if o, ok := f.Apply(&raft.Log{Data: []byte(entry)}).(outcome); !ok || o.err != nil {
			t.Errorf("%s: %v", entry, o.err)
		}
	}
	if got := f.read(); !reflect.DeepEqual(got, State{Run: Run{"r", "d"}}) {
		t.Errorf("state after an old log: %+v", got)
	}
	const old = `{"schema":1,"state":{"run":{"id":"r","config_digest":"d"},"lease":{"holder":"a","epoch":3,"ttl":5000000000,"expires":"2026-01-01T00:00:00Z"},
		"services":[{"name":"retriever","instance":"h-1","role":"retriever","address":"http://h:1","registered":"2026-01-01T00:00:00Z","expires":"0001-01-01T00:00:00Z"}]}}`
	if err := f.Restore(io.NopCloser(strings.NewReader(old))); err != nil {
		t.Fatal(err)
	}
	if got := f.read(); got.Run.ID != "r" || got.Lease.Epoch != 3 {
		t.Errorf("state of an old snapshot: %+v", got)
	}
}

func FuzzDecodeCommand(f *testing.F) {
	f.Add([]byte(`{"now":"2026-01-01T00:00:00Z","set_run":{"run":{"id":"r","config_digest":"d"}}}`))
	f.Add([]byte(`{"now":"2026-01-01T00:00:00Z","fly":{}}`))
	f.Add([]byte(`{} {}`))
	f.Add([]byte(`{"expire_services":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := decodeCommand(data)
		if err != nil {
			if !errors.Is(err, forager.ErrSchema) && !errors.Is(err, errRetired) {
				t.Fatalf("got %v", err)
			}
			return
		}
		var s State
		_, _ = s.Apply(c) // must not panic
	})
}
