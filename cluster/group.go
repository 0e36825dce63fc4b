package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/forager-rl/forager"
)

// Server is one node of the group.
type Server struct {
	ID      string `json:"id"`
	Address string `json:"address"` // under which the others dial it
	Voter   bool   `json:"voter"`   // false: it only follows
	Leader  bool   `json:"leader"`
}

func (s Server) String() string { return s.ID + "=" + s.Address }

// change is a change of who belongs to the group or leads it.
type change struct {
	Op      operation `json:"op"`
	ID      string    `json:"id"` // may be empty for transfer: the leader picks
	Address string    `json:"address,omitempty"`
}

type operation string

const (
	opAdmit    operation = "admit"    // a node without a vote, or its new address
	opPromote  operation = "promote"  // a vote for a node that follows
	opRemove   operation = "remove"   // a node
	opTransfer operation = "transfer" // the lead to a voter
)

// maxBehind is how many log entries a node may lack when it is given a vote: a
// voter that must catch up first would hold up every command.
const maxBehind = 64

// servers lists the group as this node knows it.
func (c *Cluster) servers() []Server {
	_, leader := c.raft.LeaderWithID()
	var list []Server
	for _, s := range c.configuration() {
		list = append(list, Server{string(s.ID), string(s.Address), s.Suffrage == raft.Voter, s.ID == leader})
	}
	return list
}

// change changes the group. It answers the errors of Apply, forager.ErrNotFound
// for a node that is not in the group, and plain errors for what would leave the
// group without a majority.
func (c *Cluster) change(ctx context.Context, ch change) error {
	if _, err := c.settle(ctx); err != nil {
		return err
	}
	servers := c.servers()
	i := slices.IndexFunc(servers, func(s Server) bool { return s.ID == ch.ID })
	if i < 0 && (ch.Op == opPromote || ch.Op == opRemove || ch.Op == opTransfer && ch.ID != "") {
		hint := `"forager voters list" shows who is in the group`
		if ch.Op == opPromote {
			hint = "a new node is let in some seconds after its start with cluster.join=true on an empty directory: try again then"
		}
		return forager.WithHint(fmt.Errorf("node %q of the raft group %v: %w", ch.ID, servers, forager.ErrNotFound), hint)
	}
	switch ch.Op {
	case opAdmit:
		return c.admit(ctx, ch, servers, i)
	case opPromote:
		return c.promote(ctx, servers, servers[i])
	case opRemove:
		return c.remove(ctx, servers, servers[i])
	case opTransfer:
		if i >= 0 && servers[i].ID == c.cfg.NodeID {
			return nil
		}
		if i >= 0 && !servers[i].Voter {
			return fmt.Errorf("node %q has no vote: it cannot lead", ch.ID)
		}
		return c.transfer(ctx, ch.ID, servers)
	default:
		return fmt.Errorf("cluster change %q: %w", ch.Op, forager.ErrSchema)
	}
}

// admit lets a node in without a vote, or notes the new address of one.
func (c *Cluster) admit(ctx context.Context, ch change, servers []Server, i int) error {
	if !isName(ch.ID) || len(ch.ID) > maxNameBytes {
		return fmt.Errorf("node id %.128q: want letters, digits, - and _", ch.ID)
	}
	if err := checkAddress(ch.Address); err != nil {
		return err
	}
	for _, s := range servers {
		if s.Address == ch.Address && s.ID != ch.ID {
			return fmt.Errorf("address %s belongs to node %q of the group", ch.Address, s.ID)
		}
	}
	if i >= 0 && servers[i].Address == ch.Address {
		return nil
	}
	id, address := raft.ServerID(ch.ID), raft.ServerAddress(ch.Address)
	if i >= 0 && servers[i].Voter {
		return c.await(ctx, "wait for raft to note an address", func() raft.Future {
			return c.raft.AddVoter(id, address, 0, c.limit(ctx))
		})
	}
	return c.await(ctx, "wait for raft to let a node in", func() raft.Future {
		return c.raft.AddNonvoter(id, address, 0, c.limit(ctx))
	})
}

// promote gives a node a vote once it has caught up.
func (c *Cluster) promote(ctx context.Context, servers []Server, s Server) error {
	if s.Voter {
		return nil
	}
	if c.cfg.Forward != nil {
		status, err := c.statusOf(ctx, s.ID)
		if err != nil {
			return unavailable(fmt.Sprintf("ask node %q how far it is", s.ID), err)
		}
		if newest := c.raft.CommitIndex(); status.Applied+maxBehind < newest {
			return unavailable("give a node its vote", fmt.Errorf("node %q has applied %d log entries of %d", s.ID, status.Applied, newest))
		}
	}
	s.Voter = true
	if err := c.checkMajority(ctx, append(others(servers, s.ID), s)); err != nil {
		return err
	}
	return c.await(ctx, "wait for raft to give a node its vote", func() raft.Future {
		return c.raft.AddVoter(raft.ServerID(s.ID), raft.ServerAddress(s.Address), 0, c.limit(ctx))
	})
}

// remove takes a node out of the group. A leader hands the lead on first, and its
// successor removes it.
func (c *Cluster) remove(ctx context.Context, servers []Server, s Server) error {
	rest := others(servers, s.ID)
	if !slices.ContainsFunc(rest, func(s Server) bool { return s.Voter }) {
		return fmt.Errorf("node %q is the last voter of the group", s.ID)
	}
	if s.Voter {
		if err := c.checkMajority(ctx, rest); err != nil {
			return err
		}
	}
	if s.ID == c.cfg.NodeID {
		if err := c.transfer(ctx, "", servers); err != nil {
			return err
		}
		return c.notLeader()
	}
	return c.await(ctx, "wait for raft to remove a node", func() raft.Future {
		return c.raft.RemoveServer(raft.ServerID(s.ID), 0, c.limit(ctx))
	})
}

// transfer hands the lead to a voter; "" means the one that is most up to date.
func (c *Cluster) transfer(ctx context.Context, to string, servers []Server) error {
	if !slices.ContainsFunc(servers, func(s Server) bool { return s.Voter && s.ID != c.cfg.NodeID }) {
		return forager.WithHint(fmt.Errorf("node %q is the only voter of the group: nobody can take the lead", c.cfg.NodeID), "add a voter with: forager voters add")
	}
	f := c.raft.LeadershipTransfer
	if to != "" {
		i := slices.IndexFunc(servers, func(s Server) bool { return s.ID == to })
		f = func() raft.Future {
			return c.raft.LeadershipTransferToServer(raft.ServerID(to), raft.ServerAddress(servers[i].Address))
		}
	}
	return c.await(ctx, "wait for raft to hand the lead on", f)
}

// handOver gives the lead away at the end, so that the group need not wait for
// an election. It is a favour: without it the others notice on their own.
func (c *Cluster) handOver() {
	if !c.leads() || c.disk.failure() != nil || len(c.configuration()) < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*c.cfg.election())
	defer cancel()
	if err := c.transfer(ctx, "", c.servers()); err != nil {
		c.log.Debug("hand the raft lead on: the others will elect", "error", err)
	}
}

// others lists all servers but one.
func others(servers []Server, id string) []Server {
	return slices.DeleteFunc(slices.Clone(servers), func(s Server) bool { return s.ID == id })
}

// checkMajority refuses a group whose voters that answer are no majority: the
// change could not be agreed on, and nothing after it.
func (c *Cluster) checkMajority(ctx context.Context, servers []Server) error {
	if c.cfg.Forward == nil {
		return nil
	}
	voters := slices.DeleteFunc(slices.Clone(servers), func(s Server) bool { return !s.Voter })
	answered := make([]bool, len(voters))
	var asked sync.WaitGroup
	for i, s := range voters {
		asked.Go(func() {
			if s.ID == c.cfg.NodeID {
				answered[i] = true
				return
			}
			_, err := c.statusOf(ctx, s.ID)
			answered[i] = err == nil
		})
	}
	asked.Wait()
	var silent []string
	for i, s := range voters {
		if !answered[i] {
			silent = append(silent, s.ID)
		}
	}
	if up := len(voters) - len(silent); up <= len(voters)/2 {
		return forager.WithHint(fmt.Errorf("of the %d voters after this change only %d answer: the group would have no majority", len(voters), up),
			fmt.Sprintf("start or remove %s first", strings.Join(silent, ", ")))
	}
	return nil
}

// statusOf gives the status of another node.
func (c *Cluster) statusOf(ctx context.Context, id string) (Status, error) {
	data, err := json.Marshal(request{Read: readStatus, Forwarded: true})
	if err != nil {
		return Status{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, forwardWait)
	defer cancel()
	answer, err := c.cfg.Forward(ctx, id, data)
	if err != nil {
		return Status{}, err
	}
	var r response
	if err := json.Unmarshal(answer, &r); err != nil || r.Status == nil {
		return Status{}, fmt.Errorf("node %q gave no status: %w", id, forager.ErrSchema)
	}
	return *r.Status, nil
}
