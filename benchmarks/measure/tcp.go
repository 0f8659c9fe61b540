package measure

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"weft/benchmarks/machine"
)

// iperfReport is what is read of iperf3's JSON. The fields of the reverse direction
// are there with --bidir only.
type iperfReport struct {
	Error string
	End   struct {
		Sent            iperfSum `json:"sum_sent"`
		Received        iperfSum `json:"sum_received"`
		ReverseSent     iperfSum `json:"sum_sent_bidir_reverse"`
		ReverseReceived iperfSum `json:"sum_received_bidir_reverse"`
	}
}

type iperfSum struct {
	Bytes         float64
	BitsPerSecond float64 `json:"bits_per_second"`
	Retransmits   float64
}

// values turns a report, and the CPU time in which it came about, into figures.
func (r iperfReport) values(cpu machine.CPU) (Values, error) {
	if r.Error != "" {
		return nil, fmt.Errorf("iperf3: %s", r.Error)
	}
	gbit := (r.End.Received.Bytes + r.End.ReverseReceived.Bytes) * 8 / 1e9
	if gbit == 0 {
		return nil, errors.New("iperf3 received nothing")
	}
	return Values{
		received.Key:    (r.End.Received.BitsPerSecond + r.End.ReverseReceived.BitsPerSecond) / 1e9,
		retransmits.Key: r.End.Sent.Retransmits + r.End.ReverseSent.Retransmits,
		cpuPerGbit.Key:  cpu.Busy / gbit,
	}, nil
}

// wholeSeconds rounds up: iperf3 and sockperf take nothing else.
func wholeSeconds(during time.Duration) time.Duration {
	return time.Duration(math.Ceil(during.Seconds())) * time.Second
}

// stream measures a TCP transfer by iperf3.
func stream(args ...string) func(context.Context, pods, time.Duration) (Values, error) {
	return func(ctx context.Context, p pods, during time.Duration) (Values, error) {
		server, err := start(ctx, p.to, "listening", "iperf3", "--server", "--one-off", "--forceflush")
		if err != nil {
			return nil, err
		}
		defer server.kill()
		cpu, err := machine.StartCPU()
		if err != nil {
			return nil, err
		}
		report, err := iperfClient(ctx, p, during, args...)
		if err != nil {
			return nil, err
		}
		spent, err := cpu.Stop()
		if err != nil {
			return nil, err
		}
		return report.values(spent)
	}
}

// iperfPatience is how much longer than its measurement iperf3 may run.
const iperfPatience = 15 * time.Second

func iperfClient(ctx context.Context, p pods, during time.Duration, args ...string) (iperfReport, error) {
	during = wholeSeconds(during)
	ctx, cancel := context.WithTimeoutCause(ctx, during+iperfPatience, errors.New("iperf3 hangs"))
	defer cancel()
	args = append([]string{"--json", "--client", p.to.Addr.String(), "--time", strconv.Itoa(int(during.Seconds()))}, args...)
	var report iperfReport
	err := runJSON(ctx, p.from, &report, "iperf3", args...)
	if report.Error != "" {
		return report, nil // says more than the exit status
	}
	return report, err
}
