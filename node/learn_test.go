package node

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/forager-rl/forager/cluster"
	"github.com/forager-rl/forager/rundir"
)

// direct calls a node of the group in this process.
type direct struct{ *cluster.Cluster }

func (d direct) Call(ctx context.Context, request []byte) ([]byte, error) {
	return d.Handle(ctx, request)
}

// TestEpochsOutliveTheGroup: a group that lost its state counts from 1 again; a
// learner goes on above the epochs that have left checkpoints.
func TestEpochsOutliveTheGroup(t *testing.T) {
	dir, err := rundir.Create(t.TempDir(), "run")
	if err != nil {
		t.Fatal(err)
	}
	c, err := cluster.Open(cluster.DefaultConfig(), filepath.Join(dir.Path(), "raft"), testLogger(t), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := &process{cfg: DefaultConfig(), dir: dir, cluster: cluster.NewClient(direct{c}), clock: time.Now, name: "a", logger: testLogger(t)}
	for _, step := range []struct {
		checkpoint string
		want       uint64
	}{{"step-00000009", 1}, {"step-00000011-e7", 8}, {"step-00000012-e8", 9}} {
		if err := os.Mkdir(filepath.Join(dir.Path(), "checkpoints", step.checkpoint), 0o755); err != nil {
			t.Fatal(err)
		}
		tenure, err := p.takeLease(t.Context())
		if err != nil || tenure.Epoch() != step.want {
			t.Fatalf("after %s: %+v, %v; want epoch %d", step.checkpoint, tenure, err, step.want)
		}
	}
}

// TestLeaseIsWatched: who stands by counts by its own clock, whatever the
// leader's says.
func TestLeaseIsWatched(t *testing.T) {
	const ttl = 5 * time.Second
	begin := time.Now()
	lease := cluster.Lease{Holder: "a", Epoch: 1, TTL: ttl, Expires: begin.Add(-time.Hour)}
	var w leaseWatch
	for _, step := range []struct {
		at      time.Duration
		renewed bool
		holder  string
		want    bool
	}{
		{0, false, "a", false},
		{4 * time.Second, false, "a", false},
		{4500 * time.Millisecond, true, "a", false},
		{9400 * time.Millisecond, false, "a", false},
		{9500 * time.Millisecond, false, "a", true}, // a whole TTL without a renewal
		{9600 * time.Millisecond, true, "b", false},
		{9700 * time.Millisecond, true, "", true}, // given back
	} {
		lease.Holder = step.holder
		if step.renewed {
			lease.Expires = lease.Expires.Add(time.Second)
		}
		if got := w.free(lease, begin.Add(step.at)); got != step.want {
			t.Errorf("after %v: free is %v", step.at, got)
		}
	}
}
