package measure

import (
	"context"
	"errors"
	"math"
	"time"

	"weft/benchmarks/machine"
	"weft/internal/testnet"
)

// transferred turns a report, and the CPU time in which it came about, into figures.
func transferred(r *testnet.IperfReport, cpu machine.CPU) (Values, error) {
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
		server, err := p.to.StartIperf(ctx)
		if err != nil {
			return nil, err
		}
		defer server.Kill()
		cpu, err := machine.StartCPU()
		if err != nil {
			return nil, err
		}
		report, err := p.from.Iperf(ctx, p.to.Addr, int(wholeSeconds(during).Seconds()), args...)
		if err != nil {
			return nil, err
		}
		spent, err := cpu.Stop()
		if err != nil {
			return nil, err
		}
		return transferred(report, spent)
	}
}
