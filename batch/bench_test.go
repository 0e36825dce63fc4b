package batch

import (
	"fmt"
	"testing"
)

// Batches of 1, 8 and 32 groups of 8 episodes of 240 tokens, 60 of them sampled
// by the policy; the last is about the 512 KiB at which actors flush.
var benchGroups = []int{1, 8, 32}

func BenchmarkEncodeGroups(b *testing.B) {
	for _, n := range benchGroups {
		b.Run(fmt.Sprintf("groups=%d", n), func(b *testing.B) {
			groups := episodes(1, n, 8)
			size := 0
			b.ReportAllocs()
			for b.Loop() {
				data, err := EncodeGroups(groups)
				if err != nil {
					b.Fatal(err)
				}
				size = len(data)
			}
			report(b, size, n*8*240)
		})
	}
}

func BenchmarkDecodeGroups(b *testing.B) {
	for _, n := range benchGroups {
		b.Run(fmt.Sprintf("groups=%d", n), func(b *testing.B) {
			data, err := EncodeGroups(episodes(1, n, 8))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := DecodeGroups(data); err != nil {
					b.Fatal(err)
				}
			}
			report(b, len(data), n*8*240)
		})
	}
}

func report(b *testing.B, size, tokens int) {
	b.SetBytes(int64(size))
	b.ReportMetric(float64(size)/float64(tokens), "bytes/token")
	b.ReportMetric(float64(tokens)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}
