// Command native is our side of the peer comparisons in bench: it runs the
// cases that a driver names on its standard input, one JSON object a line, and
// answers each with one line on its standard output, until the input ends. The
// peers' sides speak the same protocol, so that a driver can run both in turn
// while both stay loaded.
//
//	native generation -model DIR_OR_GGUF [-weights FORMAT] [-threads N]
//	native training -shape 5m|smollm2 [-batch N] [-length N] [-micro N] [-threads N]
//	native products [-threads N]
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
)

// request names one case. Fields that a case does not use are ignored.
type request struct {
	Case   string `json:"case"`   // "prefill", "decode", "group", "train" or the name of a product
	Batch  int    `json:"batch"`  // sequences at once
	Prompt int    `json:"prompt"` // tokens of each prompt
	New    int    `json:"new"`    // tokens generated for each sequence
	Shared bool   `json:"shared"` // group: the prompts are the same
	Steps  int    `json:"steps"`  // train: optimiser steps
	Seed   uint64 `json:"seed"`   // of token ids and matrices

	// Of a product: it is M×N, K is the inner dimension.
	M       int     `json:"m"`
	N       int     `json:"n"`
	K       int     `json:"k"`
	Seconds float64 `json:"seconds"` // to repeat it for
}

// result is what a case took.
type result struct {
	Tokens    int     `json:"tokens"`
	Seconds   float64 `json:"seconds"`
	PeakBytes int64   `json:"peak_bytes"` // largest resident set of this process so far
	Loss      float64 `json:"loss,omitempty"`
	GFLOPs    float64 `json:"gflops,omitempty"` // of a product: 10⁹ multiplications and additions a second
}

// side runs cases.
type side interface {
	run(req request) (result, error)
	close() error
}

func main() {
	if err := serve(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "native:", err)
		os.Exit(1)
	}
}

func serve(args []string, in io.Reader, out io.Writer) (err error) {
	if len(args) == 0 {
		return errors.New("want generation, training or products")
	}
	var s side
	switch args[0] {
	case "generation":
		s, err = newGeneration(args[1:])
	case "training":
		s, err = newTraining(args[1:])
	case "products":
		s, err = newProducts(args[1:])
	default:
		err = fmt.Errorf("unknown side %q, want generation, training or products", args[0])
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	requests, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var req request
		if err := requests.Decode(&req); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		res, err := s.run(req)
		if err != nil {
			return fmt.Errorf("%s: %w", req.Case, err)
		}
		if res.PeakBytes, err = peakBytes(); err != nil {
			return err
		}
		if err := answers.Encode(res); err != nil {
			return fmt.Errorf("write result: %w", err)
		}
	}
}

// peakBytes is the largest resident set of this process so far. Linux counts
// it in KiB, macOS in bytes.
func peakBytes() (int64, error) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0, fmt.Errorf("read resource usage: %w", err)
	}
	if runtime.GOOS == "darwin" {
		return usage.Maxrss, nil
	}
	return usage.Maxrss << 10, nil
}
