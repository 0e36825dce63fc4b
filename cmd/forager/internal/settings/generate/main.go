// Command generate writes comments.txt, what every setting means, from the doc
// comments of the Config structs. It runs in cmd/forager, see go:generate there.
package main

import (
	"fmt"
	"os"

	"github.com/forager-rl/forager/cmd/forager/internal/settings"
	"github.com/forager-rl/forager/node"
	"github.com/forager-rl/forager/warmstart"
)

const (
	module = "github.com/forager-rl/forager"
	output = "internal/settings/comments.txt"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run() error {
	text, err := generated("../..")
	if err != nil {
		return err
	}
	return os.WriteFile(output, []byte(text), 0o644)
}

// generated is the content of comments.txt for the module at root.
func generated(root string) (string, error) {
	var config struct {
		node.Config `mapstructure:",squash"`
		Warmstart   warmstart.Config `mapstructure:"warmstart"`
	}
	return extract(root, module, settings.List(&config))
}
