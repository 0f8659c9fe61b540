package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"weft/internal/family"
	"weft/internal/stage"
	"weft/internal/testnet"
)

const throughputSeconds = 5

func (d *demo) measureThroughput(ctx context.Context) error {
	if _, err := exec.LookPath("iperf3"); err != nil {
		d.Note("Not shown: iperf3 is not installed.")
		return nil
	}
	from, to := d.pods[0], d.pods[podsPerNode]
	for _, f := range family.All {
		report, err := iperf(ctx, from, to, f)
		if err != nil {
			return d.Concerning(err, from.Node, to.Node)
		}
		d.OK("%s → %s  %s  %s Gb/s  %s  %.0f retransmits", from.PodName, to.PodName, f,
			d.Paint(stage.Bold, fmt.Sprintf("%5.2f", gigabits(report.End.Received.BitsPerSecond))),
			bars(report), report.End.Sent.Retransmits)
	}
	d.Note("iperf3, one stream, %d s each, a bar for each second. Sender, receiver and both", throughputSeconds)
	d.Note("weftd share this machine's processors.")
	return nil
}

// iperf sends as fast as it can from one pod to another.
func iperf(ctx context.Context, from, to *testnet.Pod, f family.Family) (*testnet.IperfReport, error) {
	server, err := to.StartIperf(ctx)
	if err != nil {
		return nil, err
	}
	defer server.Kill()
	return from.Iperf(ctx, f.First(to.Addrs), throughputSeconds)
}

// bars draws a block for each second, relative to the fastest.
func bars(report *testnet.IperfReport) string {
	var most float64
	for _, i := range report.Intervals {
		most = max(most, i.Sum.BitsPerSecond)
	}
	levels := []rune("▁▂▃▄▅▆▇█")
	var drawn strings.Builder
	for _, i := range report.Intervals {
		level := 0
		if most > 0 {
			level = int(i.Sum.BitsPerSecond / most * float64(len(levels)-1))
		}
		drawn.WriteRune(levels[level])
	}
	return drawn.String()
}

func gigabits(bitsPerSecond float64) float64 { return bitsPerSecond / 1e9 }
