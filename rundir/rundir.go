package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/internal/wholefile"
)

// Names inside a run directory.
const (
	configFile     = "config.yaml"
	metricsFile    = "metrics.jsonl"
	checkpointsDir = "checkpoints"
	rolloutsDir    = "rollouts"
)

// Dir is one run directory.
type Dir struct{ path string }

// NewID makes a readable run id such as 20261122-071500-brave-otter from the
// time, in UTC, and a random number.
func NewID(now time.Time, random uint64) string {
	adjective := adjectives[random%uint64(len(adjectives))]
	animal := animals[random/uint64(len(adjectives))%uint64(len(animals))]
	return now.UTC().Format("20060102-150405") + "-" + adjective + "-" + animal
}

// idPattern allows what is safe in file names, NATS subjects and URLs.
var idPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`)

// Create makes the run directory root/id with its folders. It answers
// forager.ErrInUse when it exists already.
func Create(root, id string) (*Dir, error) {
	if !idPattern.MatchString(id) {
		return nil, forager.WithHint(fmt.Errorf("create run directory: id %q is not allowed", id),
			"use 1 to 64 of a-z, 0-9, '-' and '_', a letter or digit first")
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, fmt.Errorf("create run directory: %w", err)
	}
	path := filepath.Join(root, id)
	if err := os.Mkdir(path, 0o755); errors.Is(err, fs.ErrExist) {
		return nil, forager.WithHint(fmt.Errorf("create run directory %s: it exists: %w", path, forager.ErrInUse),
			"continue that run with --resume "+path+" or choose another id")
	} else if err != nil {
		return nil, fmt.Errorf("create run directory: %w", err)
	}
	for _, sub := range []string{checkpointsDir, rolloutsDir} {
		if err := os.Mkdir(filepath.Join(path, sub), 0o755); err != nil {
			return nil, fmt.Errorf("create run directory: %w", err)
		}
	}
	if err := wholefile.Sync(root); err != nil {
		return nil, fmt.Errorf("create run directory: %w", err)
	}
	return &Dir{path: path}, nil
}

// Open finds an existing run directory. It answers forager.ErrNotFound when the
// path is none.
func Open(path string) (*Dir, error) {
	if info, err := os.Stat(filepath.Join(path, checkpointsDir)); err != nil || !info.IsDir() {
		return nil, forager.WithHint(fmt.Errorf("open run directory %s: %w", path, forager.ErrNotFound),
			"give the path of a folder that forager train made, such as runs/<id>")
	}
	return &Dir{path: filepath.Clean(path)}, nil
}

// ID is the run id.
func (d *Dir) ID() string {
	abs, err := filepath.Abs(d.path)
	if err != nil { // only without a working directory
		abs = d.path
	}
	return filepath.Base(abs)
}

// Path is where the run directory lies.
func (d *Dir) Path() string { return d.path }

// RolloutsPath is the folder of the rollouts as Arrow IPC files.
func (d *Dir) RolloutsPath() string { return filepath.Join(d.path, rolloutsDir) }

// MetricsPath is the metrics.jsonl of the run, for ReadMetrics.
func (d *Dir) MetricsPath() string { return filepath.Join(d.path, metricsFile) }

// WriteConfig stores the resolved settings, whole or not at all.
func (d *Dir) WriteConfig(yaml []byte) error {
	return writeFile(filepath.Join(d.path, configFile), yaml)
}

// ReadConfig gives the settings that WriteConfig stored. It answers
// forager.ErrNotFound when the run ended before it had any.
func (d *Dir) ReadConfig() ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(d.path, configFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, forager.WithHint(fmt.Errorf("settings of run %s: %w", d.ID(), forager.ErrNotFound),
			"the run ended before it began: start a new one")
	}
	if err != nil {
		return nil, fmt.Errorf("settings of run %s: %w", d.ID(), err)
	}
	return data, nil
}
