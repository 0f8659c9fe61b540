package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"weft/internal/family"
	"weft/internal/stage"
	"weft/internal/testnet"
)

const throughputSeconds = 5

// iperfReport is what we read of iperf3's JSON.
type iperfReport struct {
	Error     string
	Intervals []struct {
		Sum struct {
			BitsPerSecond float64 `json:"bits_per_second"`
		}
	}
	End struct {
		SumSent struct {
			Retransmits int
		} `json:"sum_sent"`
		SumReceived struct {
			BitsPerSecond float64 `json:"bits_per_second"`
		} `json:"sum_received"`
	}
}

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
		d.OK("%s → %s  %s  %s Gb/s  %s  %d retransmits", from.PodName, to.PodName, f,
			d.Paint(stage.Bold, fmt.Sprintf("%5.2f", gigabits(report.End.SumReceived.BitsPerSecond))),
			bars(report), report.End.SumSent.Retransmits)
	}
	d.Note("iperf3, one stream, %d s each, a bar for each second. Sender, receiver and both", throughputSeconds)
	d.Note("weftd share this machine's processors.")
	return nil
}

// iperf sends as fast as it can from one pod to another.
func iperf(ctx context.Context, from, to *testnet.Pod, f family.Family) (*iperfReport, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := to.Command(ctx, "iperf3", "--server", "--one-off", "--forceflush")
	stdout, err := server.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := server.Start(); err != nil {
		return nil, fmt.Errorf("start the iperf3 server: %w", err)
	}
	defer func() {
		cancel()
		_ = server.Wait() // it was just killed
	}()
	if err := waitListening(bufio.NewScanner(stdout)); err != nil {
		return nil, err
	}
	out, err := from.Exec(ctx, "iperf3", "--json", "--client", f.First(to.Addrs).String(), "--time", strconv.Itoa(throughputSeconds))
	var report iperfReport
	if decodeErr := json.Unmarshal([]byte(out), &report); decodeErr != nil {
		return nil, errors.Join(err, fmt.Errorf("read iperf3's report: %w", decodeErr))
	}
	if report.Error != "" || err != nil {
		return nil, fmt.Errorf("iperf3: %s: %w", report.Error, err)
	}
	return &report, nil
}

// waitListening reads the server's output until it accepts connections. The pipe
// ends when the server does.
func waitListening(output *bufio.Scanner) error {
	for output.Scan() {
		if strings.Contains(output.Text(), "listening") {
			return nil
		}
	}
	return errors.Join(errors.New("the iperf3 server ended before it listened"), output.Err())
}

// bars draws a block for each second, relative to the fastest.
func bars(report *iperfReport) string {
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
