package main_test

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"weft/internal/status"
	"weft/internal/testnet"
)

// startCapture runs `weft capture` on a node until end is called, which returns a line for each packet:
// its source, its destination and its comment.
func startCapture(t *testing.T, n *testnet.Node, args ...string) (end func() []string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "capture.pcapng")
	args = append([]string{"--socket", filepath.Join(n.RunDir(), status.SocketName), "capture", "-w", file}, args...)
	// The end of the test must not kill it: it has a file to finish.
	capture := exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(binDir, "weft"), args...)
	stderr, err := capture.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := capture.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "capturing") {
		t.Fatalf("weft capture: %s", lines.Text())
	}
	return func() []string {
		_ = capture.Process.Signal(syscall.SIGINT)
		for lines.Scan() {
			t.Log(lines.Text())
		}
		if err := capture.Wait(); err != nil {
			t.Fatalf("weft capture: %v", err)
		}
		out, err := exec.CommandContext(t.Context(), "tshark", "-r", file, "-T", "fields", "-E", "separator=|",
			"-e", "ip.src", "-e", "ip.dst", "-e", "frame.comment").Output()
		if err != nil {
			t.Fatalf("tshark: %v", err)
		}
		return strings.Split(strings.TrimSpace(string(out)), "\n")
	}
}

func TestCaptureShowsPacketsInClear(t *testing.T) {
	t.Parallel()
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true})
	node1, node2 := cluster.Nodes()[0], cluster.Nodes()[1]
	pod1, pod2 := addPod(t, node1, "a"), addPod(t, node2, "b")
	from, to := addrOf(t, pod1, false), addrOf(t, pod2, false)
	all := startCapture(t, node1, "--host", to.String())
	ping := func(addr string, count int) {
		_, _ = pod1.Exec(t.Context(), "ping", "-c", fmt.Sprint(count), "-i", "0.01", "-W", "1", addr)
	}
	ping(to.String(), 5)
	ping(cluster.Nodes()[1].Entry().Endpoint.Addr().String(), 3) // another host

	if out, err := node1.Exec(t.Context(), filepath.Join(binDir, "weft"), "--socket", filepath.Join(node1.RunDir(), status.SocketName), "capture", "-w", "/dev/null"); err == nil || !strings.Contains(err.Error(), "another") {
		t.Errorf("a second capture: %s, %v", out, err)
	}
	outbound, inbound := 0, 0
	for _, line := range all() {
		switch {
		case strings.HasPrefix(line, fmt.Sprintf("%s|%s|outbound, lane ", from, to)) && strings.HasSuffix(line, ", peer node2"):
			outbound++
		case strings.HasPrefix(line, fmt.Sprintf("%s|%s|inbound, lane ", to, from)) && strings.HasSuffix(line, ", peer node2"):
			inbound++
		default:
			t.Errorf("captured: %s", line)
		}
	}
	if outbound != 5 || inbound != 5 {
		t.Errorf("%d outbound and %d inbound packets were captured, of 5 each", outbound, inbound)
	}

	// A route of another program leads a pod's packet out and back.
	run(t, node1.Namespace, "ip", "route", "add", "10.244.1.99", "dev", "weft0")
	dropped := startCapture(t, node1, "--dropped")
	ping(to.String(), 2)
	ping("10.244.1.99", 2)
	lines := dropped()
	for _, line := range lines {
		if !strings.HasPrefix(line, fmt.Sprintf("%s|10.244.1.99|outbound, lane ", from)) || !strings.HasSuffix(line, "DROPPED: destination_local") {
			t.Errorf("captured with --dropped: %s", line)
		}
	}
	if len(lines) != 2 {
		t.Errorf("%d dropped packets were captured, of 2", len(lines))
	}
}
