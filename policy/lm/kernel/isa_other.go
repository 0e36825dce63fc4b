//go:build !amd64

package kernel

// available lists the implementations for this processor, best first.
func available() []*instructionSet { return []*instructionSet{portable()} }

// pause is a hint to the processor that the program waits in a loop.
func pause() {}
