package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/cluster"
)

func TestAdviseVoters(t *testing.T) {
	err := adviseVoters(fmt.Errorf("call the raft group: %w", cluster.ErrUnavailable))
	if !errors.Is(err, cluster.ErrUnavailable) || !strings.Contains(err.Error(), "forager status") {
		t.Errorf("without a leader: %v", err)
	}
	for _, as := range []error{nil, errors.New("no majority"), forager.WithHint(cluster.ErrUnavailable, "start node-2 first")} {
		if got := adviseVoters(as); !errors.Is(got, as) || got != nil && got.Error() != as.Error() {
			t.Errorf("%v became %v", as, got)
		}
	}
}
