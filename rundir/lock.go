package rundir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"github.com/forager-rl/forager"
)

// owner is what a lock file says about the process that holds it.
type owner struct {
	PID  int    `json:"pid"`
	Host string `json:"host"`
}

// Lock makes this process the only one with a role ("learner", "replay", ...) in
// the run directory, until unlock is called or the process dies: the lock is the
// operating system's, so that a killed process leaves none behind. It answers
// forager.ErrInUse with the holder's process id. Calling unlock twice is safe.
func (d *Dir) Lock(role string) (unlock func() error, err error) {
	if !idPattern.MatchString(role) {
		return nil, fmt.Errorf("lock run directory: role %q is not allowed", role)
	}
	path := filepath.Join(d.path, role+".lock")
	lock := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o644))
	held, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock run directory: %w", err)
	}
	if !held {
		return nil, inUse(d.path, role, path)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host" // it is for the reader only
	}
	data, err := json.Marshal(owner{PID: os.Getpid(), Host: host})
	if err == nil {
		err = os.WriteFile(path, data, 0o644) // in place: renaming would lose the lock
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock run directory: %w", err), lock.Close())
	}
	return sync.OnceValue(lock.Close), nil
}

// AwaitLock takes the operating system's lock on a file, which is made when
// absent, as soon as nobody has it. It gives up when ctx is done. Calling unlock
// twice is safe.
func AwaitLock(ctx context.Context, path string) (unlock func() error, err error) {
	lock := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o644))
	if _, err := lock.TryLockContext(ctx, lockPoll); err != nil {
		return nil, errors.Join(fmt.Errorf("wait for the lock %s: %w", path, err), lock.Close())
	}
	return sync.OnceValue(lock.Close), nil
}

// lockPoll is how often a wait for a lock looks.
const lockPoll = 20 * time.Millisecond

// inUse is the error that names the holder of a lock.
func inUse(dir, role, path string) error {
	who, stop := "another process", "stop that process"
	var o owner
	if data, err := os.ReadFile(path); err == nil && json.Unmarshal(data, &o) == nil && o.PID > 0 {
		who = fmt.Sprintf("process %d on %s", o.PID, o.Host)
		stop = fmt.Sprintf("stop process %d", o.PID)
	}
	return forager.WithHint(fmt.Errorf("run directory %s: %w by the %s of %s", dir, forager.ErrInUse, role, who),
		stop+" or wait for it, or use another run directory")
}
