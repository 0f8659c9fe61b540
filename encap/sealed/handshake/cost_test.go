package handshake_test

import (
	"syscall"
	"testing"
	"time"
)

// BenchmarkHandshake measures the processor time that both ends of a handshake take together.
func BenchmarkHandshake(b *testing.B) {
	one, other := upPair(b)
	before := processorTime(b)
	for b.Loop() {
		if err := one.manager.Rotate(b.Context(), other.self.Name); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(b.N), "cpu-us/op")
}

func processorTime(t testing.TB) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
