package measure

import (
	"encoding/json"
	"errors"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"weft/benchmarks/load"
	"weft/benchmarks/machine"
	"weft/internal/testnet"
)

func TestSearchFindsWhereLossBegins(t *testing.T) {
	for name, tt := range map[string]struct {
		low, high, lossless, want float64
		tolerance                 float64
	}{
		"in between":                {low: 10e3, high: 400e3, lossless: 90e3, want: 90e3, tolerance: 0.06},
		"every rate loses":          {low: 10e3, high: 400e3, lossless: 1, want: 0},
		"no rate does":              {low: 10e3, high: 400e3, lossless: 1e9, want: 400e3, tolerance: 0.06},
		"nothing arrives at all":    {low: 0, high: 400e3, lossless: 1, want: 0},
		"less is sent than arrives": {low: 10, high: 10, lossless: 100, want: 0},
	} {
		tries := 0
		got, err := search(tt.low, tt.high, func(rate float64) (trial, error) {
			tries++
			if rate > tt.lossless {
				return trial{rate: rate, loss: 0.002}, nil
			}
			return trial{rate: rate, loss: 0.001}, nil
		})
		if err != nil || tries > searchSteps || got > tt.want || got < tt.want*(1-tt.tolerance) {
			t.Errorf("%s: got %v after %d tries, %v", name, got, tries, err)
		}
	}
}

func TestSearchReportsTheRateThatWasReached(t *testing.T) {
	got, err := search(10e3, 400e3, func(rate float64) (trial, error) { return trial{rate: min(rate, 50e3)}, nil })
	if got != 50e3 || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	broken := errors.New("broken")
	if _, err := search(10e3, 400e3, func(float64) (trial, error) { return trial{}, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestReportsOfIperf(t *testing.T) {
	values := func(text string) (Values, error) {
		var report testnet.IperfReport
		if err := json.Unmarshal([]byte(text), &report); err != nil {
			t.Fatal(err)
		}
		return transferred(&report, machine.CPU{Busy: 6})
	}
	oneWay, err := values(`{"end": {
		"sum_sent": {"bytes": 5e9, "bits_per_second": 10e9, "retransmits": 7},
		"sum_received": {"bytes": 5e9, "bits_per_second": 9.5e9}}}`)
	if err != nil || oneWay["gbps"] != 9.5 || oneWay["retransmits"] != 7 || oneWay["cpu_per_gbit"] != 6./40 {
		t.Errorf("one way: %v, %v", oneWay, err)
	}
	bothWays, err := values(`{"end": {
		"sum_sent": {"retransmits": 7}, "sum_received": {"bytes": 5e9, "bits_per_second": 9e9},
		"sum_sent_bidir_reverse": {"retransmits": 1}, "sum_received_bidir_reverse": {"bytes": 2.5e9, "bits_per_second": 3e9}}}`)
	if err != nil || bothWays["gbps"] != 12 || bothWays["retransmits"] != 8 || bothWays["cpu_per_gbit"] != 0.1 {
		t.Errorf("both ways: %v, %v", bothWays, err)
	}
	if _, err := values(`{"end": {}}`); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("got %v", err)
	}
}

func TestLossIsAPartOfWhatWasSent(t *testing.T) {
	s := shot{sent: load.Count{Packets: 1000}, arrived: load.Count{Packets: 998}}
	if got := s.loss(); math.Abs(got-0.002) > 1e-12 {
		t.Errorf("got %v", got)
	}
	if got := (shot{}).loss(); got != 1 {
		t.Errorf("of nothing, %v is lost", got)
	}
}

func TestCellsSayHowLongTheyTake(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range All() {
		if seen[c.Name] || len(c.Metrics) == 0 || strings.ContainsAny(c.Name, ", ") {
			t.Errorf("bad cell %q", c.Name)
		}
		seen[c.Name] = true
		if got := c.Takes(4 * time.Second); got < 4*time.Second || got > 12*time.Second {
			t.Errorf("%s takes %v for 4s", c.Name, got)
		}
	}
	if got := wholeSeconds(1500 * time.Millisecond); got != 2*time.Second {
		t.Errorf("iperf3 and sockperf run for %v", got)
	}
}

func TestSockperfsPercentilesAreRead(t *testing.T) {
	const report = `sockperf: [Total Run] RunTime=3.000 sec; Warm up time=400 msec; SentMessages=60480; ReceivedMessages=60479
sockperf: [Valid Duration] RunTime=2.550 sec; SentMessages=47611; ReceivedMessages=47611
sockperf: # dropped messages = 2; # duplicated messages = 0; # out-of-order messages = 1
sockperf: ---> <MAX> observation = 1187.548
sockperf: ---> percentile 99.990 =  493.000
sockperf: ---> percentile 99.900 =   58.131
sockperf: ---> percentile 99.000 =   38.817
sockperf: ---> percentile 50.000 =   26.379
sockperf: ---> <MIN> observation =    5.638
`
	values, err := parseSockperf(report, 3*time.Second)
	want := Values{"p50": 26.379, "p99": 38.817, "p999": 58.131, "counted_s": 2.55, "dropped": 2, "duplicated": 0, "out_of_order": 1}
	if err != nil || !maps.Equal(values, want) {
		t.Errorf("got %v, %v; want %v", values, err, want)
	}
	if _, err := parseSockperf(report, 6*time.Second); err == nil {
		t.Error("a ping-pong that ended before half of its time is taken")
	}
	if _, err := parseSockperf("sockperf: No messages were received from the server. Is the server down?", time.Second); err == nil {
		t.Error("a report without percentiles is taken")
	}
}
