package main

import (
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/forager-rl/forager/rundir"
)

func (a *app) runs() *cobra.Command {
	cmd := group("runs", "List runs")
	list := &cobra.Command{
		Use: "list", Short: "One line for each run directory, oldest first", Args: noArgs,
		Example: "  forager runs list",
	}
	resolve := settingFlags(list, shortcut{"root", "run.root", "`folder` of the run directories"})
	list.RunE = func(*cobra.Command, []string) error {
		cfg, err := resolve("")
		if err != nil {
			return err
		}
		entries, err := os.ReadDir(cfg.Run.Root)
		if err != nil {
			return err
		}
		table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "run\tsteps\treward\tem\tcheckpoints")
		for _, entry := range entries {
			if dir, err := rundir.Open(filepath.Join(cfg.Run.Root, entry.Name())); err == nil {
				fmt.Fprintln(table, runLine(dir))
			}
		}
		return table.Flush()
	}
	cmd.AddCommand(list)
	return cmd
}

// runLine describes a run by its last step; a run without any shows dashes.
func runLine(dir *rundir.Dir) string {
	steps, gain, em := "-", "-", "-"
	if rows, err := rundir.ReadMetrics(dir.MetricsPath()); err == nil && len(rows) > 0 {
		last := rows[len(rows)-1]
		steps, gain, em = fmt.Sprint(last.Step), fmt.Sprintf("%.3f", last.Values["reward"]), fmt.Sprintf("%.3f", last.Values["em"])
	}
	checkpoints, _ := dir.ReadCheckpoints().List() // none is 0 as well
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%d", dir.Path(), steps, gain, em, len(checkpoints))
}
