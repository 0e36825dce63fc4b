package bus

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

var benchSizes = []int{16 << 10, 64 << 10, 512 << 10}

// BenchmarkPublish is one publisher that waits for every ack, over loopback TCP
// like another process, into a file store.
func BenchmarkPublish(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprintf("size=%dKiB", size>>10), func(b *testing.B) {
			client := join(b, open(b, nil), nil)
			data := make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				if err := client.Publish(b.Context(), Digests, "", data); err != nil { // drops its oldest: never full
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkQueue is the way of a batch: publish with ack, fetch, ack.
func BenchmarkQueue(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprintf("size=%dKiB", size>>10), func(b *testing.B) {
			server := open(b, nil)
			client := join(b, server, nil)
			data := make([]byte, size)
			b.SetBytes(int64(size))
			for i := 0; b.Loop(); i++ {
				if err := client.Publish(b.Context(), Rollouts, fmt.Sprint(i), data); err != nil {
					b.Fatal(err)
				}
				ack(b, take(b, server, Rollouts, 1)...)
			}
		})
	}
}

func BenchmarkRequest(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprintf("reply=%dKiB", size>>10), func(b *testing.B) {
			server := open(b, nil)
			reply := make([]byte, size)
			serve(b, server, "sample", func(context.Context, []byte) ([]byte, error) { return reply, nil })
			client := join(b, server, nil)
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := client.Request(b.Context(), "sample", nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLargeObject stores and reads the weights of a model of 135 million
// parameters on a machine whose cores are all busy, as a learner's are.
func BenchmarkLargeObject(b *testing.B) {
	const size = 540_000_000
	server := open(b, nil)
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	var done atomic.Bool
	var burn sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		burn.Go(func() {
			for sum := uint64(0); !done.Load(); sum++ { // keeps a core busy
			}
		})
	}
	defer burn.Wait()
	defer done.Store(true)
	b.Run("put", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			if err := server.PutObject(b.Context(), "weights", data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("get", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			if got, err := server.GetObject(b.Context(), "weights"); err != nil || len(got) != size {
				b.Fatal(len(got), err)
			}
		}
	})
}
