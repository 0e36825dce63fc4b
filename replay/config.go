package replay

import (
	"errors"
	"fmt"
	"time"
)

// The orders in which a table offers groups.
const (
	SampleFIFO    = "fifo"    // oldest first
	SampleLIFO    = "lifo"    // newest first
	SampleUniform = "uniform" // any with equal probability
)

// The ways to make inserts durable.
const (
	SyncOS     = "os"     // survives a killed process; the operating system decides when to write to disk
	SyncAlways = "always" // survives a power failure; every insert and commit waits for the disk
)

// Config sets a table and its service.
type Config struct {
	// Sampler is the order in which groups are offered: fifo, lifo or uniform.
	Sampler string `mapstructure:"sampler"`
	// MaxGroups is the capacity of the table. Beyond it the oldest group that is
	// not lent out is evicted and its credit returned. At least 1.
	MaxGroups int `mapstructure:"max_groups"`
	// MaxTimesSampled is how often a group is learned from before it is removed.
	// At least 1, which is what on-policy algorithms want.
	MaxTimesSampled int `mapstructure:"max_times_sampled"`
	// MinSize is how many groups must be on offer before any is sampled. At
	// least 1.
	MinSize int `mapstructure:"min_size"`
	// SampleToInsertRatio is how many samples to aim for per insert; whichever
	// side is ahead by more than RatioErrorBuffer waits. 0 turns the limit off.
	SampleToInsertRatio float64 `mapstructure:"sample_to_insert_ratio"`
	// RatioErrorBuffer is the slack of SampleToInsertRatio, in samples. At least
	// the larger of 1 and the ratio.
	RatioErrorBuffer float64 `mapstructure:"ratio_error_buffer"`
	// SegmentBytes is the size at which a new segment file is begun.
	SegmentBytes int64 `mapstructure:"segment_bytes"`
	// Sync says when data is forced to disk: os or always.
	Sync string `mapstructure:"sync"`
	// MaxLabels bounds the annotations kept in memory; beyond it new ones are
	// dropped and counted.
	MaxLabels int `mapstructure:"max_labels"`
	// MaxEarlyRollouts bounds the rollouts whose annotations are kept although
	// the rollout has not come yet; the oldest are dropped first.
	MaxEarlyRollouts int `mapstructure:"max_early_rollouts"`
	// MaxQuarantined bounds the undecodable batches that are kept for people to
	// look at; further ones are only counted.
	MaxQuarantined int `mapstructure:"max_quarantined"`
	// MaxWait bounds how long one request waits for groups.
	MaxWait time.Duration `mapstructure:"max_wait"`
	// ResponseBytes bounds one response; a step is filled by several. One batch
	// always fits.
	ResponseBytes int `mapstructure:"response_bytes"`
}

// DefaultConfig gives a first-in first-out queue that never makes anyone wait.
func DefaultConfig() Config {
	return Config{
		Sampler:          SampleFIFO,
		MaxGroups:        4096,
		MaxTimesSampled:  1,
		MinSize:          1,
		RatioErrorBuffer: 64,
		SegmentBytes:     64 << 20,
		Sync:             SyncOS,
		MaxLabels:        1 << 20,
		MaxEarlyRollouts: 1 << 14,
		MaxQuarantined:   100,
		MaxWait:          2 * time.Second,
		ResponseBytes:    4 << 20,
	}
}

// Validate reports every value that is out of range.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("replay."+format, args...))
		}
	}
	check(c.Sampler == SampleFIFO || c.Sampler == SampleLIFO || c.Sampler == SampleUniform,
		"sampler is %q, want %s, %s or %s", c.Sampler, SampleFIFO, SampleLIFO, SampleUniform)
	check(c.MaxGroups >= 1, "max_groups is %d, want at least 1", c.MaxGroups)
	check(c.MaxTimesSampled >= 1, "max_times_sampled is %d, want at least 1", c.MaxTimesSampled)
	check(c.MinSize >= 1 && c.MinSize <= c.MaxGroups, "min_size is %d, want 1 to max_groups, %d", c.MinSize, c.MaxGroups)
	check(c.SampleToInsertRatio >= 0, "sample_to_insert_ratio is %g, want 0 or more", c.SampleToInsertRatio)
	check(c.SampleToInsertRatio == 0 || c.RatioErrorBuffer >= max(1, c.SampleToInsertRatio),
		"ratio_error_buffer is %g, want at least the larger of 1 and sample_to_insert_ratio", c.RatioErrorBuffer)
	check(c.SegmentBytes >= 1, "segment_bytes is %d, want at least 1", c.SegmentBytes)
	check(c.Sync == SyncOS || c.Sync == SyncAlways, "sync is %q, want %s or %s", c.Sync, SyncOS, SyncAlways)
	check(c.MaxLabels >= 0, "max_labels is %d, want 0 or more", c.MaxLabels)
	check(c.MaxEarlyRollouts >= 0, "max_early_rollouts is %d, want 0 or more", c.MaxEarlyRollouts)
	check(c.MaxQuarantined >= 0, "max_quarantined is %d, want 0 or more", c.MaxQuarantined)
	check(c.MaxWait > 0, "max_wait is %s, want more than 0", c.MaxWait)
	check(c.ResponseBytes >= 1, "response_bytes is %d, want at least 1", c.ResponseBytes)
	return errors.Join(errs...)
}
