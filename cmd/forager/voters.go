package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/cluster"
	"github.com/forager-rl/forager/node"
)

func (a *app) voters() *cobra.Command {
	cmd := group("voters", "Look at the Raft group, change who votes and who leads")
	cmd.AddCommand(a.votersList(), a.votersAdd(), a.votersRemove(), a.votersTransfer())
	return cmd
}

// voterCommand makes a command that speaks to the group of a running run.
func (a *app) voterCommand(cmd *cobra.Command, do func(ctx context.Context, c *cluster.Client, args []string) error) *cobra.Command {
	cmd.Example = fmt.Sprintf("  forager voters %s --nats nats://127.0.0.1:4222 --run trial", cmd.Use)
	resolve := settingFlags(cmd, natsFlag, shortcut{"run", "run.id", "`name` of the run"})
	level := verbosity(cmd, slog.LevelWarn)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := resolve("")
		if err != nil {
			return err
		}
		if cfg.Bus.URL == "" || cfg.Run.ID == "" {
			return usageError{errors.New("name the run and its message bus: --run ID --nats nats://host:4222")}
		}
		return node.WithGroup(cmd.Context(), cfg.Config, node.GroupOptions{Run: cfg.Run.ID, URL: cfg.Bus.URL, Logger: logger(a.stderr, level())},
			func(ctx context.Context, c *cluster.Client) error { return adviseVoters(do(ctx, c, args)) })
	}
	return cmd
}

// adviseVoters says what to do when the group has no leader. Other errors stay
// as they are.
func adviseVoters(err error) error {
	if _, advised := errors.AsType[*forager.HintError](err); advised || !errors.Is(err, cluster.ErrUnavailable) {
		return err
	}
	return forager.WithHint(err, `a majority of the voters must be up and reach each other: "forager status" names those that are silent`)
}

// oneNode wants the id of a node as the only argument.
func oneNode(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError{fmt.Errorf("%s takes one node id, as \"forager voters list\" shows it", cmd.CommandPath())}
	}
	return nil
}

func (a *app) votersList() *cobra.Command {
	return a.voterCommand(&cobra.Command{Use: "list", Short: "List the nodes of the Raft group", Args: noArgs},
		func(ctx context.Context, c *cluster.Client, _ []string) error {
			servers, err := c.Servers(ctx)
			if err != nil {
				return err
			}
			return a.printServers(servers)
		})
}

func (a *app) printServers(servers []cluster.Server) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tADDRESS\tROLE")
	for _, s := range servers {
		role := "follows, no vote"
		switch {
		case s.Leader:
			role = "leads"
		case s.Voter:
			role = "votes"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", s.ID, s.Address, role)
	}
	return w.Flush()
}

func (a *app) votersAdd() *cobra.Command {
	var address string
	cmd := a.voterCommand(&cobra.Command{
		Use: "add NODE", Short: "Give a node a vote", Args: oneNode,
		Long: `Give a vote to a node that follows the group and has caught up. Such a node is
started with "forager cluster --set cluster.join=true". Groups have three or five
voters: an even number survives no more losses than one less.

With --address it tells the group that a node is now reached there.`,
	}, func(ctx context.Context, c *cluster.Client, args []string) error {
		if address != "" {
			if err := c.AddNonvoter(ctx, args[0], address); err != nil {
				return err
			}
		}
		return a.done(c.AddVoter(ctx, args[0]), "%s has a vote", args[0])
	})
	cmd.Flags().StringVar(&address, "address", "", "`host:port` under which the other nodes reach it, when that has changed")
	return cmd
}

func (a *app) votersRemove() *cobra.Command {
	return a.voterCommand(&cobra.Command{
		Use: "remove NODE", Short: "Take a node out of the Raft group", Args: oneNode,
		Long: `Take a node out of the group, whether it has a vote or not and whether it is up
or not. A node that leads hands the lead on first. What would leave the group
without a majority is refused.`,
	}, func(ctx context.Context, c *cluster.Client, args []string) error {
		return a.done(c.RemoveVoter(ctx, args[0]), "%s is removed", args[0])
	})
}

func (a *app) votersTransfer() *cobra.Command {
	return a.voterCommand(&cobra.Command{
		Use: "transfer [NODE]", Short: "Hand the lead to another voter",
		Long: "Hand the lead to a voter, or to the one that is most up to date.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return oneNode(cmd, args)
			}
			return nil
		},
	}, func(ctx context.Context, c *cluster.Client, args []string) error {
		to := ""
		if len(args) == 1 {
			to = args[0]
		}
		if err := c.Transfer(ctx, to); err != nil {
			return err
		}
		servers, err := c.Servers(ctx)
		if err != nil {
			return err
		}
		return a.printServers(servers)
	})
}

// done prints what a change has done.
func (a *app) done(err error, format string, args ...any) error {
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, format+"\n", args...)
	return err
}
