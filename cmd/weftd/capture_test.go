package main_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/internal/testnet"
)

// capture is a tshark that verifies the checksums of all packets of a protocol on eth0.
type capture struct {
	at      *testnet.Namespace
	command *exec.Cmd
	counts  chan map[string]int
}

// startCapture returns when packets are captured.
func startCapture(t *testing.T, at *testnet.Namespace, protocol string) *capture {
	t.Helper()
	// A namespace lists a socket here when it is bound to a device (packet(7)). What
	// tshark says of itself comes before that.
	sockets := func() int { return strings.Count(run(t, at, "cat", "/proc/self/net/packet"), "\n") }
	before := sockets()
	c := &capture{at: at, counts: make(chan map[string]int, 1)}
	c.command = at.Command(t.Context(), "tshark", "-l", "-n", "-i", "eth0", "-f", protocol, "-B", "64",
		"-o", protocol+".check_checksum:TRUE", "-o", "ip.check_checksum:TRUE",
		"-T", "fields", "-e", protocol+".checksum.status", "-e", protocol+".checksum")
	stdout, err := c.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { c.counts <- count(stdout) }()
	within(t, 20*time.Second, "tshark at "+at.Name()+" captures", func() error {
		if sockets() == before {
			return errors.New("no socket is bound yet")
		}
		return nil
	})
	return c
}

// count tallies the field tcp.checksum.status: 0 is bad, 1 is good. tshark calls the
// checksum 0xffff bad, since 0 is the usual way to write that number. The kernel's
// skb_checksum_help writes 0xffff.
func count(out io.Reader) map[string]int {
	names := map[string]string{"0": "Bad", "1": "Good"}
	counts := map[string]int{}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		status, checksum, _ := strings.Cut(lines.Text(), "\t")
		name, known := names[status]
		switch {
		case !known:
			name = fmt.Sprintf("status %q", status)
		case checksum == "0xffff":
			name = "Good"
		}
		counts[name]++
	}
	return counts
}

// stop ends the capture when it has seen what was sent until now.
func (c *capture) stop(t *testing.T) map[string]int {
	t.Helper()
	_ = c.command.Process.Signal(syscall.SIGINT)
	counts := <-c.counts
	_ = c.command.Wait()
	return counts
}

// With the checksum offload of the pods' links off, what is captured there is what a
// real card would send.
func TestPodsWithoutChecksumOffloadSeeOnlyValidChecksums(t *testing.T) {
	t.Parallel()
	_, pod1, pod2 := podsOnTwoNodes(t)
	for _, pod := range []*testnet.Pod{pod1, pod2} {
		run(t, pod.Namespace, "ethtool", "-K", "eth0", "tx", "off", "rx", "off")
		run(t, pod.Node.Namespace, "ethtool", "-K", hostVeth(t, pod.Node.Namespace), "tx", "off")
	}
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			captures := []*capture{startCapture(t, pod2.Namespace, "tcp"), startCapture(t, pod2.Namespace, "udp")}
			transfer(t, pod1.Namespace, pod2.Namespace, addrOf(t, pod2, v6), 4<<20)
			f := newFlow(t, pod1, pod2, v6)
			for size := range 1000 {
				f.expectBurst(t, randomBytes(size, byte(size)))
			}
			for i, protocol := range []string{"TCP", "UDP"} {
				if seen := captures[i].stop(t); len(seen) != 1 || seen["Good"] < 1000 {
					t.Errorf("tshark sees %s checksums: %v", protocol, seen)
				}
			}
		})
	}
	expectNoChecksumErrors(t, pod1.Namespace, pod2.Namespace, pod1.Node.Namespace, pod2.Node.Namespace)
}
