package limit

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/middleware/store/storetest"
	"github.com/sluice-gateway/sluice/test/testenv"
)

func BenchmarkSharedTake(b *testing.B) {
	r := storetest.Open(b, testenv.StartRedis(b).Addr, time.Second)
	for _, rules := range [][]Rule{
		{{Algorithm: TokenBucket, Requests: 1e6, Per: time.Second, Burst: 1e6}},
		{{Algorithm: TokenBucket, Requests: 1e6, Per: time.Second, Burst: 1e6}, {Algorithm: TokenBucket, Requests: 1e9, Per: time.Hour, Burst: 1e9}},
		{{Algorithm: SlidingWindow, Requests: 1000, Per: time.Second}},
	} {
		b.Run(fmt.Sprintf("%s %d rules", rules[0].Algorithm, len(rules)), func(b *testing.B) {
			s := NewShared(r, "bench", Sort(rules))
			take(b, s, "a")
			b.ReportAllocs()
			for b.Loop() {
				take(b, s, "a")
			}
		})
	}
}

// BenchmarkSharedTakeTogether has many callers ask at one time, each for a
// key of its own. Redis runs in another process: cpu-µs/op is what a decision
// costs this one.
func BenchmarkSharedTakeTogether(b *testing.B) {
	for _, callers := range []int{1, 4, 16, 64, 256} {
		b.Run(strconv.Itoa(callers), func(b *testing.B) {
			r := storetest.Open(b, testenv.StartRedis(b).Addr, time.Second)
			s := NewShared(r, "bench", []Rule{{Algorithm: TokenBucket, Requests: 1e6, Per: time.Second, Burst: 1e6}})
			take(b, s, "a")
			b.ReportAllocs()
			b.ResetTimer()
			before := processorTime(b)
			var left atomic.Int64
			left.Store(int64(b.N))
			done := make(chan error)
			for i := range callers {
				go func() {
					key := []byte(strconv.Itoa(i))
					for left.Add(-1) >= 0 {
						if _, err := s.Take(context.Background(), key); err != nil {
							done <- err
							return
						}
					}
					done <- nil
				}()
			}
			for range callers {
				if err := <-done; err != nil {
					b.Error(err)
				}
			}
			b.ReportMetric(float64((processorTime(b)-before).Nanoseconds())/1e3/float64(b.N), "cpu-µs/op")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
		})
	}
}

// processorTime is what this process has used, in user and system mode.
func processorTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
