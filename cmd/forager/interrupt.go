package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"time"
)

var errInterrupted = errors.New("interrupted")

// stopGrace bounds how long a command may take to end once its context is
// cancelled. Whatever is on disk then is as good as after kill -9.
const stopGrace = time.Second

// interrupts follows the signals to the process. The first closes stop, which
// asks for an orderly end; the second cancels the command's context, and the
// process ends soon after, whatever still hangs. A third kills it as if nobody
// listened.
type interrupts struct {
	stop   chan struct{}
	cancel context.CancelCauseFunc
	cause  func() error // why the context ended
	done   chan struct{}
}

// watch follows signals until close, and gives the context to work under. drain
// is called at the first; with nil there is no orderly end, and the first signal
// does what the second does.
func watch(ctx context.Context, signals <-chan os.Signal, drain func(), exit func(code int)) (context.Context, *interrupts) {
	ctx, cancel := context.WithCancelCause(ctx)
	i := &interrupts{
		stop: make(chan struct{}), done: make(chan struct{}),
		cancel: cancel, cause: func() error { return context.Cause(ctx) },
	}
	go func() {
		if drain != nil {
			select {
			case <-signals:
				close(i.stop)
				drain()
			case <-i.done:
				return
			}
		}
		select {
		case <-signals:
			i.cancel(errInterrupted)
			signal.Reset()
		case <-i.done:
			return
		}
		timer := time.NewTimer(stopGrace)
		defer timer.Stop()
		select {
		case <-timer.C:
			exit(exitInterrupted)
		case <-i.done:
		}
	}()
	return ctx, i
}

// result is the error of a command, or the interruption if that ended it.
func (i *interrupts) result(err error) error {
	if cause := i.cause(); errors.Is(cause, errInterrupted) {
		return cause
	}
	return err
}

// close ends the watch. Call it once.
func (i *interrupts) close() {
	i.cancel(nil)
	close(i.done)
}
