package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/actor"
	"github.com/forager-rl/forager/cluster"
	"github.com/forager-rl/forager/internal/wholefile"
	"github.com/forager-rl/forager/rundir"
)

// shop is an object store whose objects say their name.
type shop struct{ sold atomic.Int32 }

func (s *shop) get(_ context.Context, m forager.Manifest) ([]byte, error) {
	s.sold.Add(1)
	return []byte(m.Object), nil
}

func manifest(epoch uint64, version forager.Version) forager.Manifest {
	name := objectName(epoch, version)
	sum := sha256.Sum256([]byte(name))
	return forager.Manifest{
		Run: "run", Epoch: epoch, Version: version, Object: name,
		Digest: "sha256:" + hex.EncodeToString(sum[:]), Bytes: int64(len(name)),
	}
}

func counter() prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: "reads"})
}

func folder(t *testing.T, root string, s weightsSource, timeout time.Duration) *weightsFolder {
	t.Helper()
	f, err := newWeightsFolder(root, "run", s, timeout, counter(), testLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func mustGet(t *testing.T, f *weightsFolder, m forager.Manifest) {
	t.Helper()
	if data, err := f.get(t.Context(), m); err != nil || string(data) != m.Object {
		t.Fatalf("got %q, %v; want %s", data, err, m.Object)
	}
}

// TestWeightsAreFetchedOncePerHost: of many processes that want versions at the
// same moment one fetches each, and the folder does not grow.
func TestWeightsAreFetchedOncePerHost(t *testing.T) {
	const processes = 8
	root, s := t.TempDir(), &shop{}
	var folders []*weightsFolder
	for range processes {
		folders = append(folders, folder(t, root, s, time.Minute))
	}
	versions := []forager.Manifest{manifest(1, 8), manifest(1, 9), manifest(2, 9), manifest(2, 10)}
	for n, m := range versions {
		var wait sync.WaitGroup
		for _, f := range folders {
			wait.Go(func() { mustGet(t, f, m) })
		}
		wait.Wait()
		if got := int(s.sold.Load()); got != n+1 {
			t.Fatalf("%d fetches for %d versions", got, n+1)
		}
	}
	read := 0.0
	for _, f := range folders {
		read += count(t, f.read)[""]
	}
	if read != (processes-1)*float64(len(versions)) {
		t.Errorf("%v reads of the folder", read)
	}
	want := []string{"lock", versions[2].Object, versions[3].Object}
	if got := entries(t, folders[0].dir); !slices.Equal(got, want) {
		t.Errorf("left: %v, want %v", got, want)
	}
	// One that is late fetches an old version and takes nothing away.
	mustGet(t, folders[0], versions[0])
	mustGet(t, folders[1], versions[3])
	if got := s.sold.Load(); got != int32(len(versions))+1 {
		t.Errorf("%d fetches", got)
	}
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// TestDamagedWeightsAreFetchedAgain, and then are whole for all.
func TestDamagedWeightsAreFetchedAgain(t *testing.T) {
	m := manifest(3, 4)
	for name, damage := range map[string]func(path string) error{
		"truncated":   func(path string) error { return os.Truncate(path, 5) },
		"bit flipped": func(path string) error { return os.WriteFile(path, []byte("w"+m.Object[1:len(m.Object)-1]+"x"), 0o644) },
		"removed":     os.Remove,
		"killed writer": func(path string) error {
			half := filepath.Join(filepath.Dir(path), wholefile.TempPrefix+m.Object+"-1")
			return errors.Join(os.WriteFile(half, []byte("wei"), 0o600), os.Remove(path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &shop{}
			f := folder(t, t.TempDir(), s, time.Minute)
			mustGet(t, f, m)
			if err := damage(filepath.Join(f.dir, m.Object)); err != nil {
				t.Fatal(err)
			}
			mustGet(t, f, m)
			mustGet(t, f, m)
			if got := s.sold.Load(); got != 2 {
				t.Errorf("%d fetches, want 2", got)
			}
			if got := entries(t, f.dir); !slices.Equal(got, []string{"lock", m.Object}) {
				t.Errorf("left: %v", got)
			}
		})
	}
}

// TestFolderIsNotNeeded: a process that hangs with the lock, a folder that is
// gone and a name from elsewhere cost a fetch each.
func TestFolderIsNotNeeded(t *testing.T) {
	s := &shop{}
	f := folder(t, t.TempDir(), s, 50*time.Millisecond)
	unlock, err := rundir.AwaitLock(t.Context(), filepath.Join(f.dir, weightsLock))
	if err != nil {
		t.Fatal(err)
	}
	mustGet(t, f, manifest(1, 1))
	if err := errors.Join(unlock(), os.RemoveAll(f.dir)); err != nil {
		t.Fatal(err)
	}
	mustGet(t, f, manifest(1, 2))
	odd := manifest(1, 3)
	odd.Object = "../../escape"
	mustGet(t, f, odd)
	if got := s.sold.Load(); got != 3 {
		t.Errorf("%d fetches, want 3", got)
	}
}

// player plays what it was given.
type player struct{ version forager.Version }

func (p *player) Version() forager.Version { return p.version }
func (p *player) take(_ context.Context, v forager.Version, object []byte) error {
	if v <= p.version {
		return fmt.Errorf("went back from v%d to v%d", p.version, v)
	}
	p.version = v
	return nil
}

// TestVersionsNeverGoBack: whatever the cluster says after whichever notice,
// neither epoch nor version of what is played decrease.
func TestVersionsNeverGoBack(t *testing.T) {
	playing, epochs := &player{version: 5}, &newestEpoch{}
	var played actor.PlayedVersion
	var state cluster.State
	w := &weightsWatcher{
		state:   func(context.Context) (cluster.State, error) { return state, nil },
		objects: &shop{}, target: playing, played: &played, epochs: epochs, logger: testLogger(t),
	}
	for _, step := range []struct {
		lease, epoch uint64
		version      forager.Version
		want         forager.Version
		newest       uint64
	}{
		{1, 1, 5, 5, 1}, // what the actor started with
		{1, 1, 6, 6, 1},
		{2, 1, 6, 6, 2}, // another learner took over and has published nothing
		{2, 1, 7, 7, 2}, // the last word of the former one, agreed on before
		{2, 2, 8, 8, 2},
		{1, 1, 9, 8, 2}, // a group that lost its state, or an old answer
		{2, 2, 7, 8, 2},
		{3, 3, 9, 9, 3},
	} {
		m := manifest(step.epoch, step.version)
		state = cluster.State{Lease: cluster.Lease{Epoch: step.lease}, Manifest: &m}
		if err := w.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if playing.version != step.want || epochs.value.Load() != step.newest {
			t.Fatalf("after %+v: v%d, newest epoch %d", step, playing.version, epochs.value.Load())
		}
		if v := played.Version(); v != playing.version {
			t.Fatalf("after %+v: actors are told of v%d", step, v)
		}
	}
	state.Manifest = nil
	if err := w.refresh(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestOldWeights: a learner removes what is older than what it publishes and
// nothing of its successor's, nor what is no weights.
func TestOldWeights(t *testing.T) {
	m := manifest(3, 12)
	for name, want := range map[string]bool{
		objectName(3, 11): true, objectName(2, 40): true, objectName(1000000, 1): false,
		objectName(3, 12): false, objectName(3, 13): false, objectName(4, 1): false,
		rewardModelObject: false, "weights-e3-v1": false, "weights-e000001-v00000001.x": false, "lock": false,
	} {
		if got := older(name, m); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
