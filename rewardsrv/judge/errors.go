package judge

import (
	"errors"
	"time"
)

// ErrUnusable means that an endpoint works but has no answer to this request:
// it refuses it, or its answer is too large or empty. Another request may fare
// better.
var ErrUnusable = errors.New("no usable answer to this request")

// ErrUnavailable means that nobody can be asked now: the budget is spent, or no
// endpoint is well. Errors that wrap it are of type *UnavailableError.
var ErrUnavailable = errors.New("no judge can be asked now")

// UnavailableError is ErrUnavailable with its reason and the time after which
// asking again makes sense.
type UnavailableError struct {
	RetryAfter time.Duration // more than 0
	Reason     error
}

func (e *UnavailableError) Error() string { return ErrUnavailable.Error() + ": " + e.Reason.Error() }

// Unwrap gives ErrUnavailable and the reason.
func (e *UnavailableError) Unwrap() []error { return []error{ErrUnavailable, e.Reason} }

// RetryAfter is when to ask again after an error that wraps ErrUnavailable; ok is
// false for every other error.
func RetryAfter(err error) (wait time.Duration, ok bool) {
	var unavailable *UnavailableError
	if !errors.As(err, &unavailable) {
		return 0, false
	}
	return unavailable.RetryAfter, true
}
