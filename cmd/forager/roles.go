package main

import (
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/node"
)

// role is a command that runs one role in this process.
type role struct {
	name      forager.Role
	short     string
	shortcuts []shortcut
}

var natsFlag = shortcut{"nats", "bus.url", "`URL` of the message bus"}

// roles gives the role commands in the order in which a cluster is started.
func (a *app) roles() []*cobra.Command {
	var commands []*cobra.Command
	for _, r := range []role{
		{forager.RoleNATS, "Run the message bus", []shortcut{{"listen", "bus.listen", "`address` to listen on"}}},
		{forager.RoleCluster, "Run the Raft group that keeps the run's facts", []shortcut{natsFlag}},
		{forager.RoleReplay, "Store rollouts and serve them to the learner", []shortcut{natsFlag}},
		{forager.RoleRewardServer, "Label search turns as they come", []shortcut{natsFlag}},
		{forager.RoleRetriever, "Serve search over HTTP", []shortcut{
			natsFlag, {"listen", "search.server.listen", "`address` to listen on"}, {"corpus", "data.corpus", "`file` of passages"}}},
		{forager.RoleLearner, "Train on rollouts and publish weights", []shortcut{
			natsFlag, {"steps", "learner.steps", "learner `steps` of the run"}, {"policy", "policy.path", "`folder` of the policy to start from"}}},
		{forager.RoleActor, "Play search episodes", []shortcut{
			natsFlag, {"actors", "actor.count", "`number` of actors in this process"}}},
	} {
		commands = append(commands, a.role(r))
	}
	return commands
}

func (a *app) role(r role) *cobra.Command {
	cmd := &cobra.Command{
		Use: string(r.name), Short: r.short, Args: noArgs,
		Long: r.short + `.

All roles of a run get the same settings. Roles on one machine may share the run
directory. Ctrl-C ends the role in order, a second one at once.`,
		Example: fmt.Sprintf("  forager %s --nats nats://127.0.0.1:4222 --run trial", r.name),
	}
	if r.name == forager.RoleNATS {
		cmd.Example = "  forager nats --listen 127.0.0.1:4222 --run trial"
	}
	if r.name == forager.RoleRetriever {
		cmd.Long += `

Without --nats it serves the corpus by itself, to any client of POST /retrieve.`
		cmd.Example += "\n  forager retriever --corpus wiki.jsonl --listen 127.0.0.1:8000"
	}
	dir := cmd.Flags().String("dir", "", "run `directory`, made when absent (default runs/RUN)")
	resolve := settingFlags(cmd, append([]shortcut{{"run", "run.id", "`name` of the run, the same for every role"}}, r.shortcuts...)...)
	level := verbosity(cmd, slog.LevelInfo)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := resolve("")
		if err != nil {
			return err
		}
		p := newProgress(a.stdout)
		p.live = false // roles write lines, for logs
		defer p.close()
		drain := func() { p.notice(string(r.name) + ": ending; press Ctrl-C again to stop at once") }
		ctx, interrupt := watch(cmd.Context(), a.signals(), drain, a.exit)
		defer interrupt.close()
		options := node.RoleOptions{
			Roles: []forager.Role{r.name}, Logger: logger(a.stderr, level()), Observer: p.observer(), Stop: interrupt.stop,
		}
		if r.name == forager.RoleRetriever && cfg.Bus.URL == "" { // for others than a run of ours
			return interrupt.result(node.ServeRetriever(ctx, cfg.Config, options))
		}
		if options.Dir, err = roleFolder(*dir, cfg.Run); err != nil {
			return err
		}
		return interrupt.result(node.RunRoles(ctx, cfg.Config, options))
	}
	return cmd
}

// roleFolder is the run directory of a role; its last element names the run.
func roleFolder(dir string, run node.RunConfig) (string, error) {
	switch {
	case dir == "" && run.ID == "":
		return "", nil // node says what to do
	case dir == "":
		return filepath.Join(run.Root, run.ID), nil
	case run.ID != "" && filepath.Base(filepath.Clean(dir)) != run.ID:
		return "", usageError{fmt.Errorf("--dir %s belongs to run %s, not to %s; give one of --dir and --run", dir, filepath.Base(filepath.Clean(dir)), run.ID)}
	}
	return dir, nil
}
