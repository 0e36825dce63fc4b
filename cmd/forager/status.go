package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/forager-rl/forager/node"
)

// watchEvery is the time between two looks of "status --watch".
const watchEvery = 2 * time.Second

func (a *app) status() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "Show how a run is, and what is wrong", Args: noArgs,
		Long: `Show how a run is: what is wrong and what to do about it, who is there, the Raft
group, the learner's lease, the weights and how far actors are behind, what waits
in the streams. It asks the bus, takes a few seconds at most, and says what it
cannot reach. docs/status.md explains every line.

The exit code is 0 when the run is healthy and 1 when something is wrong.`,
		Example: `  forager status --run ID                           # its bus is in runs/ID
  forager status --nats nats://127.0.0.1:4222 --run ID --watch
  forager status --nats nats://127.0.0.1:4222 --run ID --json`,
	}
	resolve := settingFlags(cmd, natsFlag, shortcut{"run", "run.id", "`name` of the run"})
	flags := cmd.Flags()
	asJSON := flags.Bool("json", false, "write JSON, with --watch one line for each look")
	again := flags.Bool("watch", false, "look again every two seconds, until Ctrl-C")
	colour := flags.String("color", "auto", "`when` to use colour: auto, always or never")
	level := verbosity(cmd, slog.LevelError)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		palette, err := newPalette(*colour, isTerminal(a.stdout))
		if err != nil {
			return err
		}
		cfg, err := resolve("")
		if err != nil {
			return err
		}
		show := func(s *node.Status) error { return statusView{palette}.write(a.stdout, s) }
		switch {
		case *asJSON && *again:
			show = func(s *node.Status) error { return json.NewEncoder(a.stdout).Encode(s) }
		case *asJSON:
			show = func(s *node.Status) error { return s.WriteJSON(a.stdout) }
		case *again && isTerminal(a.stdout):
			show = func(s *node.Status) error { return a.redraw(statusView{palette}, s) }
		}
		ctx, interrupt := watch(cmd.Context(), a.signals(), nil, a.exit)
		defer interrupt.close()
		err = lookAt(ctx, *again, show, func(ctx context.Context) (node.Status, error) {
			return node.ReadStatus(ctx, cfg.Config, logger(a.stderr, level()))
		})
		if *again && err == nil {
			return nil // Ctrl-C is how a watch ends
		}
		return interrupt.result(err)
	}
	return cmd
}

// lookAt shows the status once, or again and again until ctx is done. A run that
// is not healthy is an error.
func lookAt(ctx context.Context, again bool, show func(*node.Status) error, read func(context.Context) (node.Status, error)) error {
	for {
		s, err := read(ctx)
		if ctx.Err() == nil && err == nil {
			err = show(&s)
		}
		switch {
		case err != nil:
			return err
		case !again && s.Healthy:
			return nil
		case !again:
			return fmt.Errorf("run %s: %s wrong", s.Run, things(s.Wrong()))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchEvery):
		}
	}
}

// things counts what is wrong.
func things(n int) string {
	if n == 1 {
		return "1 thing is"
	}
	return fmt.Sprintf("%d things are", n)
}

// redraw shows a status in place of what the terminal shows.
func (a *app) redraw(view statusView, s *node.Status) error {
	const home = "\x1b[H\x1b[2J" // cursor to the top, everything erased (ECMA-48)
	if _, err := io.WriteString(a.stdout, home); err != nil {
		return err
	}
	return view.write(a.stdout, s)
}

func (a *app) health() *cobra.Command {
	cmd := &cobra.Command{
		Use: "health", Short: "Tell whether a process is alive, or ready", Args: noArgs,
		Long: `Ask the admin server of a process whether it is alive (/healthz) or, with --ready,
whether its role can be used (/readyz). It writes one line. The exit code is 0 when
the answer is yes and 1 otherwise: for health checks in containers without a shell.`,
		Example: `  forager health
  forager health --address 127.0.0.1:9464 --ready`,
	}
	resolve := settingFlags(cmd)
	address := cmd.Flags().String("address", "", "`host:port` of the admin server (default: setting admin.listen)")
	ready := cmd.Flags().Bool("ready", false, "ask whether the role of the process can be used")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := resolve("")
		if err != nil {
			return err
		}
		if *address == "" {
			*address = cfg.Admin.Listen
		}
		text, err := node.Health(cmd.Context(), cfg.Security, *address, *ready)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.stdout, text)
		return err
	}
	return cmd
}
