package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/forager-rl/forager/rundir"
)

// promise is what a check found of one promise.
type promise struct {
	name   string
	of     int // things that were looked at
	broken []string
}

func (p *promise) fail(format string, args ...any) {
	p.broken = append(p.broken, fmt.Sprintf(format, args...))
}

// shownOfEach is how many breaches of a promise are printed.
const shownOfEach = 5

// check reads a run directory that nobody writes to any more, and prints what it
// finds of every promise.
func check(_ context.Context, args []string) error {
	flags := flag.NewFlagSet("check", flag.ContinueOnError)
	dir := flags.String("run", "", "run `folder`, with rollouts and replay in it; a copy that nobody writes to")
	steps := flags.Uint64("steps", 0, "`steps` that the run must have; 0 does not say")
	logs := flags.String("logs", "", "`folder` of the actors' logs at level debug, as *.log; empty leaves out what they were promised")
	reference := flags.String("reference", "", "`folder` of a quiet run with the same settings, to compare exact match with")
	tail := flags.Int("tail", 20, "newest `steps` whose mean exact match counts")
	noise := flags.Float64("noise", 0.05, "`difference` of exact match to the quiet run that is no loss")
	if err := flags.Parse(args); err != nil {
		return err
	}
	r, err := readRun(*dir)
	if err != nil {
		return err
	}
	promises := []*promise{r.steps(*steps), r.account(), r.archive(), r.table(), r.versions()}
	if *logs != "" {
		p, err := r.acknowledged(*logs)
		if err != nil {
			return err
		}
		promises = append(promises, p)
	}
	if *reference != "" {
		p, err := r.sameResult(*reference, *tail, *noise)
		if err != nil {
			return err
		}
		promises = append(promises, p)
	}
	return report(os.Stdout, promises)
}

// report prints the promises as a table; broken ones are an error.
func report(w io.Writer, promises []*promise) error {
	broken := 0
	fmt.Fprintln(w, "| promise | looked at | broken |\n|---|---:|---:|")
	for _, p := range promises {
		fmt.Fprintf(w, "| %s | %d | %d |\n", p.name, p.of, len(p.broken))
		broken += len(p.broken)
	}
	for _, p := range promises {
		for i, text := range p.broken {
			if i == shownOfEach {
				fmt.Fprintf(w, "%s: and %d more\n", p.name, len(p.broken)-i)
				break
			}
			fmt.Fprintf(w, "%s: %s\n", p.name, text)
		}
	}
	if broken > 0 {
		return fmt.Errorf("%d promises were broken", broken)
	}
	return nil
}

// storedLine is what an actor logs once its group is acknowledged.
var storedLine = regexp.MustCompile(`msg="group is stored" credit=(\d+)`)

// acknowledged demands that every group that an actor was told is safe came to
// replay, and is in its table or has left it.
func (r *trained) acknowledged(folder string) (*promise, error) {
	p := &promise{name: "an acknowledged group comes to replay"}
	files, err := filepath.Glob(filepath.Join(folder, "*.log"))
	if err != nil {
		return nil, err
	}
	seen := map[uint64]bool{}
	for _, file := range files {
		if err := eachStored(file, func(credit uint64) { seen[credit] = true }); err != nil {
			return nil, err
		}
	}
	if len(seen) == 0 {
		return nil, fmt.Errorf("no log in %s tells of a stored group: do the actors run with -v?", folder)
	}
	for credit := range seen {
		p.of++
		if !r.held[credit] && !r.gone[credit] {
			p.fail("group %d was acknowledged and replay never had it", credit)
		}
	}
	return p, nil
}

func eachStored(file string, use func(credit uint64)) (err error) {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if match := storedLine.FindSubmatch(lines.Bytes()); match != nil {
			credit, err := strconv.ParseUint(string(match[1]), 10, 64)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			use(credit)
		}
	}
	return lines.Err()
}

// sameResult demands the exact match of a quiet run, within noise.
func (r *trained) sameResult(folder string, tail int, noise float64) (*promise, error) {
	quiet, err := rundir.ReadMetrics(filepath.Join(folder, "metrics.jsonl"))
	if err != nil {
		return nil, err
	}
	got, want := exactMatch(r.rows, tail), exactMatch(quiet, tail)
	p := &promise{name: fmt.Sprintf("exact match %.3f, of the quiet run %.3f", got, want), of: 1}
	if math.IsNaN(got) || math.IsNaN(want) || got < want-noise {
		p.fail("it is more than %.2f lower", noise)
	}
	return p, nil
}

// exactMatch is the mean of the newest rows.
func exactMatch(rows []rundir.MetricsRow, tail int) float64 {
	rows = rows[max(0, len(rows)-tail):]
	sum := 0.0
	for _, row := range rows {
		sum += row.Values["em"]
	}
	return sum / float64(len(rows))
}
