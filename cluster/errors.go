package cluster

import (
	"context"
	"errors"
	"fmt"

	"github.com/forager-rl/forager"
)

var (
	// ErrNotLeader means that another node leads: ask that one.
	ErrNotLeader = errors.New("not the raft leader")
	// ErrUnavailable means that no leader answered in time. A command that failed
	// so may have been applied or not; repeating it is safe.
	ErrUnavailable = errors.New("raft group is unavailable")
	// ErrOtherRun means that the group belongs to another run or other settings.
	ErrOtherRun = errors.New("the raft group belongs to another run")
)

// sentinelCode is the name of a sentinel on the wire.
type sentinelCode struct {
	code     string
	sentinel error
}

// sentinelCodes is in order of precedence: an error that wraps several sentinels
// travels as the first of them.
func sentinelCodes() []sentinelCode {
	return []sentinelCode{
		{"full", forager.ErrFull},
		{"not_found", forager.ErrNotFound},
		{"fenced", forager.ErrFenced},
		{"stale", forager.ErrStale},
		{"schema", forager.ErrSchema},
		{"corrupt", forager.ErrCorrupt},
		{"in_use", forager.ErrInUse},
		{"other_run", ErrOtherRun},
		{"not_leader", ErrNotLeader},
		{"unavailable", ErrUnavailable},
		{"deadline", context.DeadlineExceeded},
		{"cancelled", context.Canceled},
	}
}

// wireError is an error as it travels: its text, its hint and the name of its
// sentinel.
type wireError struct {
	Code    string `json:"code,omitempty"` // "" when it wraps no sentinel
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func toWire(err error) *wireError {
	if err == nil {
		return nil
	}
	w := &wireError{Message: err.Error()}
	if hinted, ok := errors.AsType[*forager.HintError](err); ok && hinted.Error() == w.Message {
		w.Message, w.Hint = hinted.Err.Error(), hinted.Hint
	}
	for _, s := range sentinelCodes() {
		if errors.Is(err, s.sentinel) {
			w.Code = s.code
			break
		}
	}
	return w
}

// err gives the error back with the same text, hint and sentinel.
func (w *wireError) err() error {
	if w == nil {
		return nil
	}
	remote := &remoteError{message: w.Message}
	for _, s := range sentinelCodes() {
		if s.code == w.Code {
			remote.sentinel = s.sentinel
		}
	}
	var err error = remote
	if w.Hint != "" {
		err = forager.WithHint(err, w.Hint)
	}
	return err
}

// remoteError is an error that came over the wire.
type remoteError struct {
	message  string
	sentinel error
}

func (e *remoteError) Error() string { return e.message }
func (e *remoteError) Unwrap() error { return e.sentinel }

// unavailable names a wait that ended without a leader's answer.
func unavailable(wait string, cause error) error {
	return fmt.Errorf("%s: %w: %w", wait, ErrUnavailable, cause)
}
