//go:build !amd64

package kernel

// available lists the implementations for this processor, best first.
func available() []*instructionSet { return []*instructionSet{portable()} }
