// Command render writes the chart's default rendering as plain manifests, one
// file a template, for those who do not use Helm.
//
//	render CHART FOLDER
package main

import (
	"fmt"
	"os"

	"github.com/forager-rl/forager/deploy/check"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: render CHART FOLDER")
		os.Exit(2)
	}
	if err := check.WritePlain(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}
