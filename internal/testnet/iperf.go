package testnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// IperfReport is what is read of iperf3's JSON. The fields of the reverse direction
// are there with --bidir only.
type IperfReport struct {
	Error     string
	Intervals []struct{ Sum IperfSum } // one for each second
	End       struct {
		Sum             IperfSum // of UDP: what the server has counted
		Sent            IperfSum `json:"sum_sent"`
		Received        IperfSum `json:"sum_received"`
		ReverseSent     IperfSum `json:"sum_sent_bidir_reverse"`
		ReverseReceived IperfSum `json:"sum_received_bidir_reverse"`
	}
}

// IperfSum is what one side has counted.
type IperfSum struct {
	Bytes         float64
	BitsPerSecond float64 `json:"bits_per_second"`
	Retransmits   float64

	// Of UDP.
	Packets     float64
	LostPackets float64 `json:"lost_packets"`
}

// StartIperf starts an iperf3 that serves one client.
func (n *Namespace) StartIperf(ctx context.Context) (*Process, error) {
	return n.StartReady(ctx, "listening", "iperf3", "--server", "--one-off", "--forceflush")
}

// iperfPatience is how much longer than its transfer iperf3 may run.
const iperfPatience = WaitLimit

// Iperf has iperf3 send to a server for whole seconds, by one stream unless args say
// otherwise.
func (n *Namespace) Iperf(ctx context.Context, to netip.Addr, seconds int, args ...string) (*IperfReport, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(seconds)*time.Second+iperfPatience, errors.New("iperf3 hangs"))
	defer cancel()
	args = append([]string{"--json", "--client", to.String(), "--time", strconv.Itoa(seconds)}, args...)
	report := new(IperfReport)
	err := n.RunJSON(ctx, report, "iperf3", args...)
	if report.Error != "" { // says more than the exit status
		err = fmt.Errorf("iperf3: %s", report.Error)
	}
	return report, err
}
