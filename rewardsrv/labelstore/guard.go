package labelstore

import (
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/forager-rl/forager"
)

var errPanic = errors.New("unreadable page")

// guard makes the panics of bbolt on damaged pages, and faults of its memory map
// beyond the end of a file that was cut off, errors that wrap forager.ErrCorrupt.
func guard(read func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %w: %v", forager.ErrCorrupt, errPanic, p)
		}
	}()
	return read()
}
