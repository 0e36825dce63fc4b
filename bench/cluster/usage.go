package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// usage is what a process has used up so far.
type usage struct {
	CPU  time.Duration `json:"cpu"`
	Peak int64         `json:"peak"` // bytes of memory, at most at one time
}

func used() usage {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return usage{} // fails on a bad argument only
	}
	u := usage{time.Duration(r.Utime.Nano() + r.Stime.Nano()), r.Maxrss << 10}
	// Maxrss of a process counts what its parent had when it was started.
	if own := kibibytes("/proc/self/status", "VmHWM:"); own > 0 {
		u.Peak = own
	}
	return u
}

// machineBusy is the processor time of everything that runs on this machine, 0
// where the system does not tell.
func machineBusy() time.Duration {
	const ticks = 100 // a second, of all Linux systems that Go runs on
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	total := 0
	for i, field := range strings.Fields(line) {
		n, err := strconv.Atoi(field)
		if i == 0 || i == 4 || i == 5 || i > 8 { // the word "cpu", idle, waiting for disks, time of guests
			continue
		}
		if err != nil {
			return 0
		}
		total += n
	}
	return time.Duration(total) * time.Second / ticks
}

// availableMemory is how many bytes new processes may take, 0 where the system
// does not tell.
func availableMemory() int64 { return kibibytes("/proc/meminfo", "MemAvailable:") }

// kibibytes reads a size in bytes from a file of the system, 0 when it is not
// there.
func kibibytes(file, name string) int64 {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		rest, found := strings.CutPrefix(line, name)
		if fields := strings.Fields(rest); found && len(fields) > 0 {
			kib, err := strconv.ParseInt(fields[0], 10, 64)
			if err == nil {
				return kib << 10
			}
		}
	}
	return 0
}

// spread is the least, the middle and the greatest of some values.
type spread struct{ min, median, max float64 }

func spreadOf(values []float64) spread {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return spread{sorted[0], (sorted[(n-1)/2] + sorted[n/2]) / 2, sorted[n-1]}
}

// show writes "median (min–max)" with a number of digits.
func (s spread) show(digits int) string {
	return fmt.Sprintf("%.*f (%.*f–%.*f)", digits, s.median, digits, s.min, digits, s.max)
}
