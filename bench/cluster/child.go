package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// child is this program run again in another role. It answers each line on its
// standard input, a question as JSON, with a line on its standard output, and
// ends when its input does: also when its parent is killed.
type child struct {
	name    string
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *json.Decoder
}

// stopTime bounds how long a child may take to end by itself.
const stopTime = 20 * time.Second

// startChild starts a child and waits until it says that it is ready. It is
// killed when ctx ends.
func startChild(ctx context.Context, name string, args ...string) (*child, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{name: name, cmd: exec.CommandContext(ctx, program, args...)}
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.answers = json.NewDecoder(out)
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	var ready struct{}
	if err := c.hear(&ready); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

// ask sends a question.
func (c *child) ask(question any) error {
	if err := json.NewEncoder(c.in).Encode(question); err != nil {
		return fmt.Errorf("ask %s: %w", c.name, err)
	}
	return nil
}

// hear reads the next answer.
func (c *child) hear(answer any) error {
	if err := c.answers.Decode(answer); err != nil {
		return fmt.Errorf("%s gave no answer: %w", c.name, err)
	}
	return nil
}

// stop ends the child and waits for it.
func (c *child) stop() error {
	closed := c.in.Close()
	late := time.AfterFunc(stopTime, func() { _ = c.cmd.Process.Kill() }) // Wait tells of it
	defer late.Stop()
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	return closed
}

// askAll asks all children at once and gives their answers.
func askAll[A any](children []*child, question any) ([]A, error) {
	for _, c := range children {
		if err := c.ask(question); err != nil {
			return nil, err
		}
	}
	answers := make([]A, len(children))
	for i, c := range children {
		if err := c.hear(&answers[i]); err != nil {
			return nil, err
		}
	}
	return answers, nil
}

func stopAll(children []*child) error {
	var err error
	for _, c := range children {
		err = errors.Join(err, c.in.Close())
	}
	for _, c := range children {
		err = errors.Join(err, ignoreClosed(c.stop()))
	}
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// serve is a child's side: it says that it is ready and answers questions until
// there are no more.
func serve[Q any](answer func(Q) (any, error)) error {
	answers := json.NewEncoder(os.Stdout)
	if err := answers.Encode(struct{}{}); err != nil {
		return err
	}
	questions := json.NewDecoder(bufio.NewReader(os.Stdin))
	for {
		var q Q
		err := questions.Decode(&q)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read question: %w", err)
		}
		a, err := answer(q)
		if err != nil {
			return err
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
}
