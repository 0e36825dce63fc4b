package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitError       = 1
	exitUsage       = 2
	exitInterrupted = 130 // as shells report SIGINT
)

// usageError is a mistake in how a command was typed.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// app is what the commands share.
type app struct {
	stdout, stderr io.Writer
	signals        func() <-chan os.Signal
	exit           func(code int) // ends an interrupted process that hangs
}

// run executes one command line and gives the exit code. An error is one line
// on stderr.
func run(args []string, stdout, stderr io.Writer, signals func() <-chan os.Signal) int {
	exit := func(code int) {
		fmt.Fprintln(stderr, "forager:", errInterrupted)
		os.Exit(code)
	}
	root := (&app{stdout: stdout, stderr: stderr, signals: signals, exit: exit}).root()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "forager:", oneLine(err))
	switch {
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	case errors.As(err, new(usageError)):
		return exitUsage
	}
	return exitError
}

// oneLine joins the lines of several errors.
func oneLine(err error) string {
	var lines []string
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}

func (a *app) root() *cobra.Command {
	root := group("forager", "Train language-model search agents by reinforcement learning")
	root.Long = `Forager trains language-model search agents by reinforcement learning.

"forager train" runs every role in this process: a message bus, a Raft group,
actors that play search episodes, replay, a reward server and the learner. The
same roles run one per process, on one machine or many, with "forager nats",
"forager actor" and so on. All settings are in docs/configuration.md, or in
"forager config docs".`
	root.Example = `  forager train                          # learn the built-in task; no set-up
  forager train --time-limit 10m --set learner.lag=2
  forager eval --run-dir runs/ID         # measure what was learned
  forager rollouts show --run-dir runs/ID`
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see %q", err, cmd.CommandPath()+" --help")}
	})
	root.AddGroup(
		&cobra.Group{ID: "learn", Title: "Train and look:"},
		&cobra.Group{ID: "role", Title: "Run one role of a cluster:"},
		&cobra.Group{ID: "make", Title: "Prepare:"},
	)
	add := func(id string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	add("learn", a.train(), a.eval(), a.rollouts(), a.labels(), a.status(), a.runs())
	add("role", append(a.roles(), a.health(), a.voters())...)
	add("make", a.certs(), a.warmstart(), a.tasks(), a.config(), a.version())
	return root
}

// group is a command that only holds others.
func group(use, short string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, SuggestionsMinimumDistance: 2,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			hint := fmt.Sprintf("see %q", cmd.CommandPath()+" --help")
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				hint = fmt.Sprintf("did you mean %q?", near[0])
			}
			return usageError{fmt.Errorf("unknown command %q; %s", cmd.CommandPath()+" "+args[0], hint)}
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
}

// noArgs refuses arguments that are no flags.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes flags only, not %q; see %q", cmd.CommandPath(), args[0], cmd.CommandPath()+" --help")}
	}
	return nil
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version and how it was built", Example: "  forager version", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(a.stdout, versionText(debug.ReadBuildInfo()))
			return err
		},
	}
}

func versionText(info *debug.BuildInfo, ok bool) string {
	if !ok {
		return "forager (built without module information)"
	}
	set := make(map[string]string)
	for _, s := range info.Settings {
		set[s.Key] = s.Value
	}
	text := "forager " + info.Main.Version
	if revision := set["vcs.revision"]; revision != "" && !strings.Contains(info.Main.Version, revision[:min(12, len(revision))]) {
		text += " " + revision[:min(12, len(revision))]
		if set["vcs.modified"] == "true" {
			text += "+changes"
		}
	}
	return fmt.Sprintf("%s, %s, %s/%s", text, info.GoVersion, set["GOOS"], set["GOARCH"])
}

// logger writes plain lines from a level on.
func logger(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// verbosity adds -v to a command; each one lowers the level from where quiet
// starts.
func verbosity(cmd *cobra.Command, quiet slog.Level) func() slog.Level {
	count := cmd.Flags().CountP("verbose", "v", "log more: -v, -vv")
	return func() slog.Level { return quiet - slog.Level(4*min(*count, 2)) }
}
