package units

import (
	"math"
	"testing"
)

func TestBytesHaveTheLargestUnit(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 1: "1 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB",
		1<<20 - 1: "1.0 MiB", 1<<20 - 60: "1023.9 KiB", 1 << 20: "1.0 MiB", 1 << 30: "1.0 GiB",
		1 << 40: "1.0 TiB", 1 << 50: "1.0 PiB", 1 << 60: "1.0 EiB", 1<<64 - 1: "16.0 EiB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestRatesHaveTheLargestUnit(t *testing.T) {
	for bytes, want := range map[float64]string{
		0: "0 b/s", 1: "8 b/s", 124: "992 b/s", 124.99: "1.0 kb/s", 125: "1.0 kb/s", 1234: "9.9 kb/s", 124_999: "1.0 Mb/s",
		1_250_000_000: "10.0 Gb/s", 1.25e11: "1.0 Tb/s", math.MaxUint64: "147.6 Eb/s",
	} {
		if got := BitRate(bytes); got != want {
			t.Errorf("BitRate(%v) = %s, want %s", bytes, got, want)
		}
	}
}
