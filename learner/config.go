package learner

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/forager-rl/forager"
)

// Config sets the step loop. Algorithms have their own.
type Config struct {
	// Steps is the number of optimiser steps of the run, at least 1.
	Steps uint64 `mapstructure:"steps"`
	// TimeLimit ends the run after this much training time, summed over resumed
	// sessions; an update that has begun is finished. 0 means no limit.
	TimeLimit time.Duration `mapstructure:"time_limit"`
	// GroupsPerStep is B: how many informative groups, each one task, make a
	// step. At least 1.
	GroupsPerStep int `mapstructure:"groups_per_step"`
	// GroupSize is G: how many rollouts of one task make a group. At least 2 for
	// group-relative algorithms.
	GroupSize int `mapstructure:"group_size"`
	// Lag is η: how many policy versions a group may be behind when it is
	// learned from. 0 is on-policy and leaves actors idle during updates.
	Lag int `mapstructure:"lag"`
	// MaxStaleness drops groups at sampling when any of their tokens is more than
	// this many versions old, and plays others instead. Groups are older than Lag
	// only when they arrive out of order: with MaxStaleness equal to Lag nothing
	// older is ever learned from, at the price of what plays longest. 0 means no
	// limit; otherwise at least Lag.
	MaxStaleness int `mapstructure:"max_staleness"`
	// MaxGroupsPerStep ends the gathering of a step that has at least one
	// informative group, so that steps near success still end; after four times
	// as many without any, the step ends without an update. At least
	// GroupsPerStep.
	MaxGroupsPerStep int `mapstructure:"max_groups_per_step"`
	// MicroBatchTokens bounds the tokens of one forward and backward pass, which
	// bounds memory. A longer sequence goes alone.
	MicroBatchTokens int `mapstructure:"micro_batch_tokens"`
	// MiniBatches splits a step's sequences into this many optimiser updates, as
	// PPO does. 1 makes one update of all.
	MiniBatches int `mapstructure:"mini_batches"`
	// Epochs is how many times a step goes over its sequences.
	Epochs int `mapstructure:"epochs"`
	// CheckpointEvery is the number of steps between checkpoints. With 1 a
	// published policy is always in a durable checkpoint.
	CheckpointEvery uint64 `mapstructure:"checkpoint_every"`
	// LearningRate is the optimiser's step size after the warm-up.
	LearningRate float64 `mapstructure:"learning_rate"`
	// WarmupSteps raises the learning rate linearly from 0 over this many steps.
	WarmupSteps uint64 `mapstructure:"warmup_steps"`
	// Decay is the shape of the learning rate after the warm-up: constant, linear
	// or cosine, reaching FinalLearningRate one step after the last.
	Decay string `mapstructure:"decay"`
	// FinalLearningRate is where a linear or cosine decay ends.
	FinalLearningRate float64 `mapstructure:"final_learning_rate"`
	// ShuffleRewards permutes the rewards within every step. It is the negative
	// control: nothing may be learned with it.
	ShuffleRewards bool `mapstructure:"shuffle_rewards"`
	// StallTimeout is how long no group may arrive before the learner warns and
	// issues every open credit again.
	StallTimeout time.Duration `mapstructure:"stall_timeout"`
	// RetryTimeout bounds how long a failing call to replay, bus or cluster is
	// repeated before the learner gives up.
	RetryTimeout time.Duration `mapstructure:"retry_timeout"`
}

// DefaultConfig gives the recipe of the built-in tasks.
func DefaultConfig() Config {
	return Config{
		Steps:            120,
		GroupsPerStep:    16,
		GroupSize:        8,
		Lag:              1,
		MaxStaleness:     8,
		MaxGroupsPerStep: 64,
		MicroBatchTokens: 4096,
		MiniBatches:      1,
		Epochs:           1,
		CheckpointEvery:  1,
		LearningRate:     1.5e-4,
		WarmupSteps:      5,
		Decay:            DecayLinear,
		StallTimeout:     2 * time.Minute,
		RetryTimeout:     5 * time.Minute,
	}
}

// Validate reports every value that is out of range.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("learner."+format, args...))
		}
	}
	check(c.Steps >= 1, "steps is %d, want at least 1", c.Steps)
	check(c.TimeLimit >= 0, "time_limit is %s, want 0 or more", c.TimeLimit)
	check(c.GroupsPerStep >= 1, "groups_per_step is %d, want at least 1", c.GroupsPerStep)
	check(c.GroupSize >= 1 && c.GroupSize <= forager.MaxGroupSize, "group_size is %d, want 1 to %d", c.GroupSize, forager.MaxGroupSize)
	check(c.Lag >= 0, "lag is %d, want 0 or more", c.Lag)
	check(c.MaxStaleness == 0 || c.MaxStaleness >= c.Lag, "max_staleness is %d, want 0 (no limit) or at least lag, %d", c.MaxStaleness, c.Lag)
	check(c.MaxGroupsPerStep >= c.GroupsPerStep, "max_groups_per_step is %d, want at least groups_per_step, %d", c.MaxGroupsPerStep, c.GroupsPerStep)
	check(c.MicroBatchTokens >= 1, "micro_batch_tokens is %d, want at least 1", c.MicroBatchTokens)
	check(c.MiniBatches >= 1, "mini_batches is %d, want at least 1", c.MiniBatches)
	check(c.Epochs >= 1, "epochs is %d, want at least 1", c.Epochs)
	check(c.CheckpointEvery >= 1, "checkpoint_every is %d, want at least 1", c.CheckpointEvery)
	check(c.LearningRate > 0 && !math.IsInf(c.LearningRate, 0), "learning_rate is %g, want more than 0", c.LearningRate)
	check(c.Decay == DecayConstant || c.Decay == DecayLinear || c.Decay == DecayCosine,
		"decay is %q, want %s, %s or %s", c.Decay, DecayConstant, DecayLinear, DecayCosine)
	check(c.FinalLearningRate >= 0 && c.FinalLearningRate <= c.LearningRate,
		"final_learning_rate is %g, want 0 to learning_rate, %g", c.FinalLearningRate, c.LearningRate)
	check(c.StallTimeout > 0, "stall_timeout is %s, want more than 0", c.StallTimeout)
	check(c.RetryTimeout > 0, "retry_timeout is %s, want more than 0", c.RetryTimeout)
	return errors.Join(errs...)
}
