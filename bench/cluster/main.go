// Command cluster measures the data plane as a cluster, with the project's own
// parts over a real bus; only the language model is replaced, by a policy that
// takes a given time for a turn:
//
//	go run ./bench/cluster scaling     rollouts a second against the number of actors
//	go run ./bench/cluster broadcast   weights to many receivers, against plain copies
//	go run ./bench/cluster staleness   the lag that credits allow, and what waiting for nobody gains
//
// What they print is Markdown; -help of each lists its flags, -quick makes a run
// of seconds. Actors and receivers are processes of their own: the program runs
// itself again for them, with the commands "actor" and "receiver".
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
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	commands := map[string]func(context.Context, []string) error{
		"scaling": scaling, "broadcast": broadcast, "staleness": staleness,
		"actor": actorProcess, "receiver": receiverProcess,
	}
	if len(args) == 0 || commands[args[0]] == nil {
		return errors.New("want scaling, broadcast or staleness")
	}
	return commands[args[0]](ctx, args[1:])
}
