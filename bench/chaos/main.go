// Command chaos breaks a composition and looks at what is left of its run:
//
//	go run ./bench/chaos faults   kill, pause, cut off and restart its containers
//	go run ./bench/chaos check    is anything of the run lost, double or going back?
//
// deploy/chaos.sh does both. Faults want root on the machine of the Docker daemon.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	commands := map[string]func(context.Context, []string) error{"faults": faults, "check": check}
	if len(args) == 0 || commands[args[0]] == nil {
		return errors.New("want faults or check")
	}
	return commands[args[0]](ctx, args[1:])
}
