package rewardsrv

import (
	"context"
	"testing"

	"github.com/forager-rl/forager"
)

// BenchmarkServer is the way of a digest through the server, without bus and
// judge: eight rollouts share a step. The claims about the reward server are
// measured in full_test.go.
func BenchmarkServer(b *testing.B) {
	server, err := New(DefaultConfig(), testDeps(b, newStream(), nil, newScripted(yes)))
	if err != nil {
		b.Fatal(err)
	}
	out := make(chan forager.Annotation, 16)
	d := realistic(0, 0)
	for i := 0; b.Loop(); i++ {
		if i%8 == 0 {
			d = realistic(i, i/8)
		}
		d.Turn = i
		if err := server.acceptEpisode(episode{d}, out); err != nil {
			b.Fatal(err)
		}
		if i%8 == 0 {
			w, _ := server.ledger.take(context.Background())
			server.process(context.Background(), w, out)
			server.ledger.learn(w.item.Key, outcome{value: 1})
		}
		for len(out) > 0 {
			<-out
		}
	}
}
