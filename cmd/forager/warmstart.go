package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/forager-rl/forager/warmstart"
)

func (a *app) warmstart() *cobra.Command {
	cmd := &cobra.Command{
		Use: "warmstart", Short: "Make the policy that training starts from", Args: noArgs,
		Long: `Make the policy that training starts from: a tokenizer and a small transformer,
trained on demonstration episodes about invented worlds, so that it knows the
protocol and no facts. With the default settings this is the policy built into
forager; the same settings give the same weights on one kind of processor.`,
		Example: `  forager warmstart --out mypolicy
  forager train --policy mypolicy`,
	}
	out := cmd.Flags().String("out", "", "write the policy into this `folder`")
	resolve := settingFlags(cmd, shortcut{"seed", "warmstart.seed", "`number` that fixes every random choice"})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *out == "" {
			return usageError{errors.New("no folder given; name one with --out")}
		}
		cfg, err := resolve("")
		if err != nil {
			return err
		}
		if err := os.MkdirAll(*out, 0o755); err != nil { // before the long work
			return err
		}
		p := newProgress(a.stdout)
		defer p.close()
		ctx, interrupt := watch(cmd.Context(), a.signals(), nil, a.exit)
		defer interrupt.close()
		result, err := warmstart.Run(ctx, cfg.Warmstart, func(u warmstart.Progress) {
			line := fmt.Sprintf("%s  loss %.3f  lr %.5f  %s tok/s", phaseText("tokens", u.Tokens, u.TotalTokens),
				u.Loss, u.LearningRate, thousands(int(float64(u.Tokens)/max(1e-9, u.Elapsed.Seconds()))))
			p.show("tokens", line, line, float64(u.Tokens)/float64(max(1, u.TotalTokens)), u.Tokens >= u.TotalTokens)
		})
		if err := interrupt.result(err); err != nil {
			return err
		}
		p.close()
		return a.saveWarmStart(*out, result)
	}
	return cmd
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
