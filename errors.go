package forager

import "errors"

// One sentinel per decision that a caller can take. Packages wrap these; test
// with errors.Is.
var (
	// ErrFull means that a bounded queue or stream is full: pause and retry.
	ErrFull = errors.New("queue is full")
	// ErrNotFound means that the named thing does not exist.
	ErrNotFound = errors.New("not found")
	// ErrFenced means that the caller's learner epoch is over: stop publishing.
	ErrFenced = errors.New("lease lost: another learner holds a newer epoch")
	// ErrStale means that a policy version or index went back: ignore it.
	ErrStale = errors.New("stale: a newer version is known")
	// ErrSchema means that bytes are of an unknown schema or version: keep and
	// count them, do not use them.
	ErrSchema = errors.New("unknown schema")
	// ErrCorrupt means that stored bytes are truncated or fail their digest.
	ErrCorrupt = errors.New("corrupt data")
	// ErrInUse means that another process holds the directory or port.
	ErrInUse = errors.New("in use")
	// ErrArchitecture means that weights belong to another model architecture.
	ErrArchitecture = errors.New("another architecture")
)

// HintError is an error that tells its reader the next step to take. It prints
// as "<error>; <hint>".
type HintError struct {
	Err  error
	Hint string // starts in lower case, no full stop: "pick another port with --listen"
}

// WithHint attaches a next step to an error. A nil error stays nil.
func WithHint(err error, hint string) error {
	if err == nil {
		return nil
	}
	return &HintError{Err: err, Hint: hint}
}

func (e *HintError) Error() string { return e.Err.Error() + "; " + e.Hint }

// Unwrap gives the error without its hint.
func (e *HintError) Unwrap() error { return e.Err }
