// Command rewardsrv measures the reward server in whole training runs of the
// real binary:
//
//	go run ./bench/rewardsrv critical   is it ever on the critical path?
//	go run ./bench/rewardsrv learning   does its reward help learning?
//
// Both want a machine with nothing else to do; -help of each says how long they
// take. What they print is Markdown, and what they ran stays in the folder -out.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "rewardsrv:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	commands := map[string]func(context.Context, []string) error{"critical": critical, "learning": learning}
	if len(args) == 0 || commands[args[0]] == nil {
		return errors.New("want critical or learning")
	}
	return commands[args[0]](ctx, args[1:])
}
