// Command forager trains language-model search agents by reinforcement learning:
// every role in one process with "forager train", or one role a process.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr, notified))
}

// notified gives the signals that ask a process to end. Commands that do not
// ask for them are ended by the operating system.
func notified() <-chan os.Signal {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	return signals
}
