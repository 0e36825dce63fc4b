package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/forager-rl/forager/node"
	"github.com/forager-rl/forager/warmstart"
)

func (a *app) warmstart() *cobra.Command {
	cmd := &cobra.Command{
		Use: "warmstart", Short: "Make the policy that training starts from", Args: noArgs,
		Long: `Make the policy that training starts from.

Without --policy: a tokenizer and a small transformer, trained on demonstration
episodes about invented worlds, so that it knows the protocol and no facts. With
the default settings this is the policy built into forager; the same settings
give the same weights on one kind of processor.

With --policy: a checkpoint that exists learns the protocol from demonstrations
of the training questions: searches for the titles of their gold passages, in an
order that a reader could find, and then the answer.`,
		Example: `  forager warmstart --out mypolicy
  forager train --policy mypolicy
  forager warmstart --policy SmolLM2-135M-Instruct --tasks train.jsonl --corpus corpus.jsonl --out started`,
	}
	out := cmd.Flags().String("out", "", "write the policy into this new `folder`")
	resolve := settingFlags(cmd, shortcut{"seed", "warmstart.seed", "`number` that fixes every random choice"},
		shortcut{"policy", "policy.path", "start from the policy in this `folder` or .gguf file"},
		shortcut{"tasks", "data.tasks", "`file` of questions with gold titles"},
		shortcut{"corpus", "data.corpus", "`file` of passages"})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *out == "" {
			return usageError{errors.New("no folder given; name one with --out")}
		}
		cfg, err := resolve("")
		if err != nil {
			return err
		}
		p := newProgress(a.stdout)
		defer p.close()
		ctx, interrupt := watch(cmd.Context(), a.signals(), nil, a.exit)
		defer interrupt.close()
		progress := func(u warmstart.Progress) {
			line := fmt.Sprintf("%s  loss %.3f  lr %.5f  %s tok/s", phaseText("tokens", u.Tokens, u.TotalTokens),
				u.Loss, u.LearningRate, thousands(int(float64(u.Tokens)/max(1e-9, u.Elapsed.Seconds()))))
			p.show("tokens", line, line, float64(u.Tokens)/float64(max(1, u.TotalTokens)), u.Tokens >= u.TotalTokens)
		}
		if cfg.Policy.Path != "" {
			options := node.ImitateOptions{
				Out: *out, Seed: cfg.Warmstart.Seed, Logger: logger(p.above(a.stderr), slog.LevelWarn), Phase: p.phase, Progress: progress,
			}
			return a.imitate(ctx, interrupt, cfg, options, p)
		}
		if err := os.MkdirAll(*out, 0o755); err != nil { // before the long work
			return err
		}
		result, err := warmstart.Run(ctx, cfg.Warmstart, progress)
		if err := interrupt.result(err); err != nil {
			return err
		}
		p.close()
		return a.saveWarmStart(*out, result)
	}
	return cmd
}

// imitate trains a policy that exists.
func (a *app) imitate(ctx context.Context, interrupt *interrupts, cfg config, o node.ImitateOptions, p *progress) error {
	done, err := node.Imitate(ctx, cfg.Config, cfg.Warmstart.Imitation, o)
	if err := interrupt.result(err); err != nil {
		return err
	}
	p.close()
	_, err = fmt.Fprintf(a.stdout, "policy: %s\nlearned from %d demonstrations (%s tokens); %d questions allow none\n",
		o.Out, done.Demonstrations, thousands(done.Tokens), done.Passed)
	return err
}

// saveWarmStart writes a policy folder and says where it is.
func (a *app) saveWarmStart(dir string, r warmstart.Result) error {
	if err := r.Model.Save(dir); err != nil {
		return err
	}
	if err := r.Tokenizer.Save(filepath.Join(dir, "tokenizer.json")); err != nil {
		return err
	}
	weights, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "policy: %s\nshape:  %s\nweights sha256:%x\n", dir, r.Model.Arch, sha256.Sum256(weights))
	return err
}
