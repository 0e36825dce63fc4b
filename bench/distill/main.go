// Command distill measures how well reward models learn a judge online. It plays
// turns of the training questions of closed_multihop over its real corpus, has
// the rule judge label them, gives the labels to a trainer in the order of their
// arrival, and measures the AUC on turns of dev questions, which were never
// labelled. It prints tables for docs/results/distillation.md and draws its curve.
//
//	FORAGER_DATA_DIR=DATA go run ./bench/distill -chart docs/results/distillation/auc.svg
//
// Everything runs on one core but for the searches.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/search"
	"github.com/forager-rl/forager/search/protocol"
)

// options are the flags.
type options struct {
	seeds    int
	labels   int     // of a run
	arrival  int     // labels that arrive at one time
	group    int     // turns of a question that are played one after the other
	flipped  float64 // share of labels that are flipped
	style    string
	maxBytes int
	heldOut  bool
	chart    string
}

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "distill:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	var o options
	flags := flag.NewFlagSet("distill", flag.ContinueOnError)
	flags.IntVar(&o.seeds, "seeds", 3, "number of runs")
	flags.IntVar(&o.labels, "labels", 30_000, "labels of a run")
	flags.IntVar(&o.arrival, "arrival", 64, "labels that arrive at one time")
	flags.IntVar(&o.group, "group", 8, "turns of a question that are played one after the other")
	flags.Float64Var(&o.flipped, "flipped", 0, "share of labels that are flipped, as by a weak judge")
	flags.StringVar(&o.style, "style", string(protocol.SearchR1), "layout of observations")
	flags.IntVar(&o.maxBytes, "max-bytes", 2000, "bytes of passages in an observation; 500 tokens are about 2000")
	flags.BoolVar(&o.heldOut, "held-out", false, "measure on a sixth of the training questions instead, to choose settings by")
	flags.StringVar(&o.chart, "chart", "", "SVG file to draw")
	if err := flags.Parse(args); err != nil {
		return err
	}
	report, err := distill(ctx, o)
	if err != nil {
		return err
	}
	report.print(out)
	if o.chart == "" {
		return nil
	}
	return os.WriteFile(o.chart, report.chart(), 0o644)
}

// distill does all runs.
func distill(ctx context.Context, o options) (*report, error) {
	training, unseen, err := players(ctx, o)
	if err != nil {
		return nil, err
	}
	turns, err := unseen.playAll(ctx, 20, rand.New(rand.NewPCG(0, 0)))
	if err != nil {
		return nil, err
	}
	report := newReport(turns)
	for seed := range o.seeds {
		if err := learn(ctx, o, uint64(seed+1), training, report); err != nil {
			return nil, err
		}
	}
	return report, nil
}

// players reads the data set and indexes its corpus. Both players search the
// same passages; they have no question in common.
func players(ctx context.Context, o options) (training, unseen *player, err error) {
	dir := os.Getenv("FORAGER_DATA_DIR")
	if dir == "" {
		return nil, nil, errors.New("set FORAGER_DATA_DIR to the folder that holds closed_multihop")
	}
	dir = filepath.Join(dir, "closed_multihop")
	style, err := protocol.ParseStyle(o.style)
	if err != nil {
		return nil, nil, err
	}
	passages, err := search.ReadCorpus(filepath.Join(dir, "corpus.jsonl"))
	if err != nil {
		return nil, nil, err
	}
	train, err := search.ReadTasks(filepath.Join(dir, "train.jsonl"), search.TaskDefaults{Split: forager.Train})
	if err != nil {
		return nil, nil, err
	}
	dev, err := search.ReadTasks(filepath.Join(dir, "dev.jsonl"), search.TaskDefaults{Split: forager.Dev})
	if err != nil {
		return nil, nil, err
	}
	if o.heldOut {
		rand.New(rand.NewPCG(7, 7)).Shuffle(len(train), func(i, j int) { train[i], train[j] = train[j], train[i] })
		dev, train = train[:len(train)/6], train[len(train)/6:]
	}
	index, err := search.NewBM25(ctx, passages, search.DefaultBM25Config())
	if err != nil {
		return nil, nil, err
	}
	cached := search.Cached(index, 100_000)
	training = &player{tasks: train, others: train, retriever: cached, style: style, maxBytes: o.maxBytes}
	unseen = &player{tasks: dev, others: train, retriever: cached, style: style, maxBytes: o.maxBytes}
	return training, unseen, nil
}
