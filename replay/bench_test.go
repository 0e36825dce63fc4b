package replay

import (
	"fmt"
	"testing"
)

// BenchmarkInsert stores batches of one group of 8 rollouts: decode, validate,
// write. BenchmarkSample lends them, 48 at a time, and commits; decode is the
// time of the learner's side alone.

func benchBatches(b *testing.B, tokens, n int) [][]byte {
	batches := make([][]byte, n)
	for key := range batches {
		batches[key] = encode(b, group(uint64(key), 8, tokens, 0))
	}
	return batches
}

func BenchmarkInsert(b *testing.B) {
	for _, tokens := range []int{256, 2048} {
		for _, sync := range []string{SyncOS, SyncAlways} {
			b.Run(fmt.Sprintf("tokens=%d/sync=%s", tokens, sync), func(b *testing.B) {
				const n = 64
				batches := benchBatches(b, tokens, n)
				config := DefaultConfig()
				config.Sync = sync
				b.SetBytes(int64(len(batches[0])))
				var table *Table
				groups := 0
				for b.Loop() {
					if groups%n == 0 {
						b.StopTimer()
						table = open(b, b.TempDir(), config)
						b.StartTimer()
					}
					if inserted, _, err := table.Insert(batches[groups%n]); err != nil || inserted != 1 {
						b.Fatal(inserted, err)
					}
					groups++
				}
				b.ReportMetric(float64(groups)/b.Elapsed().Seconds(), "groups/s")
			})
		}
	}
}

func BenchmarkSample(b *testing.B) {
	for _, tokens := range []int{256, 2048} {
		for _, decode := range []bool{false, true} {
			b.Run(fmt.Sprintf("tokens=%d/decode=%v", tokens, decode), func(b *testing.B) {
				const n = 192
				batches := benchBatches(b, tokens, n)
				table := open(b, b.TempDir(), DefaultConfig())
				for _, raw := range batches {
					if _, _, err := table.Insert(raw); err != nil {
						b.Fatal(err)
					}
				}
				q := Query{MaxGroups: 48, MaxBytes: 64 << 20}
				b.SetBytes(int64(48 * len(batches[0])))
				epoch, sequence, groups := uint64(1), uint64(0), 0
				for b.Loop() {
					if groups%n == 0 {
						epoch++ // takes everything back
						sequence = 0
					}
					sequence++
					loan, err := table.Sample(b.Context(), epoch, sequence, q)
					if err != nil {
						b.Fatal(err)
					}
					for _, lot := range loan.Lots {
						groups += len(lot.Keys)
					}
					if decode {
						if _, err := loan.Groups(); err != nil {
							b.Fatal(err)
						}
					}
				}
				b.ReportMetric(float64(groups)/b.Elapsed().Seconds(), "groups/s")
			})
		}
	}
}
