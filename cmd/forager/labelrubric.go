package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/rewardsrv/rubric"
)

func (a *app) labelsRubric() *cobra.Command {
	cmd := group("rubric", "List rubrics, write and check your own")
	cmd.AddCommand(a.rubricList(), a.rubricTemplate(), a.rubricCheck())
	return cmd
}

func (a *app) rubricList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "One line for each built-in rubric", Args: noArgs, Example: "  forager labels rubric list",
		RunE: func(*cobra.Command, []string) error {
			table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "name\tkind\tjudges a\tversion")
			for _, name := range rubric.Builtin() {
				r, err := rubric.Load(name)
				if err != nil {
					return err
				}
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", name, r.Kind, r.Unit(), r.Version())
			}
			return table.Flush()
		},
	}
}

func (a *app) rubricTemplate() *cobra.Command {
	return &cobra.Command{
		Use: "template", Short: "Print a rubric to start your own from", Args: noArgs,
		Example: "  forager labels rubric template > mine.yaml",
		RunE: func(*cobra.Command, []string) error {
			_, err := a.stdout.Write(rubric.Template())
			return err
		},
	}
}

func (a *app) rubricCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check RUBRIC", Short: "Check a rubric, a YAML file or a built-in one",
		Long: `Check a rubric: every mistake is named by file and line. With --prompt it also
shows what a judge would be asked about an example; the words to answer with are
drawn anew for each request.`,
		Example: `  forager labels rubric check mine.yaml
  forager labels rubric check mine.yaml --prompt`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("%s takes one rubric; see %q", cmd.CommandPath(), cmd.CommandPath()+" --help")}
			}
			return nil
		},
	}
	prompt := cmd.Flags().Bool("prompt", false, "show the request about an example")
	gold := cmd.Flags().Bool("gold", false, "show it with the accepted answer, as with judge.show_gold")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		r, err := rubric.Load(args[0])
		if err != nil {
			return err
		}
		if *prompt {
			p := r.Prompt(exampleItem(), rubric.PromptOptions{ShowGold: *gold}, rand.New(rand.NewPCG(1, 1)))
			return writePrompt(a.stdout, p)
		}
		_, err = fmt.Fprintf(a.stdout, "%s: good; name %s, kind %s, judges a %s, version %s\n", args[0], r.Name, r.Kind, r.Unit(), r.Version())
		return err
	}
	return cmd
}

func writePrompt(w io.Writer, p rubric.Prompt) error {
	_, err := fmt.Fprintf(w, "--- system\n%s\n\n--- user\n%s\n", p.System, p.User)
	return err
}

// exampleItem has all that a rubric of any kind asks about.
func exampleItem() rubric.Item {
	return rubric.Item{
		Task: forager.Task{
			ID: "example", Question: "What is the capital of the country where Lake Titicaca's port of Puno lies?", Answers: []string{"Lima"},
			Decomposition: []forager.Hop{
				{Question: "In which country does Puno lie?", Answer: "Peru"}, {Question: "What is the capital of Peru?", Answer: "Lima"}},
		},
		Question: "What is the capital of the country where Lake Titicaca's port of Puno lies?",
		Step: rubric.Step{
			Query:    "Puno port Lake Titicaca country",
			Passages: []forager.Passage{{ID: "1", Title: "Puno", Text: "Puno is a city in southeastern Peru, on the shore of Lake Titicaca."}},
			Earlier:  []string{"Lake Titicaca"},
		},
		Other: &rubric.Step{
			Query:    "Lake Titicaca depth",
			Passages: []forager.Passage{{ID: "2", Title: "Lake Titicaca", Text: "The lake has a greatest depth of 281 metres."}},
		},
		Answer: "Lima",
	}
}
