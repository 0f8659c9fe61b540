package main_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"weft/internal/testnet"
)

// residentMB is the most memory that a process has had at a time (proc_pid_status(5)).
func residentMB(t *testing.T, pid int) float64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			return number(t, strings.TrimSuffix(strings.TrimSpace(value), " kB")) / 1024
		}
	}
	t.Fatalf("no VmHWM in\n%s", text)
	return 0
}

func TestFourLanesAllocateNothingPerPacket(t *testing.T) {
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2, Configure: func(weft map[string]any) {
		weft["tun"].(map[string]any)["lanes"] = 4
	}})
	a := addPod(t, cluster.Nodes()[0], "a")
	var receivers []*testnet.Pod
	for i := range 8 { // enough that their streams are in every lane
		receivers = append(receivers, addPod(t, cluster.Nodes()[1], fmt.Sprintf("b%d", i)))
	}
	load := func(megabytes int64) {
		var streams sync.WaitGroup
		for _, b := range receivers {
			streams.Go(func() {
				transfer(t, a.Namespace, b.Namespace, addrOf(t, b, false), megabytes<<20/int64(len(receivers)))
			})
		}
		streams.Wait()
	}
	load(20) // whatever is allocated once
	// In 100 MB there are 75,000 packets. What weftd does beside forwarding, such as looking at
	// other programs' filters, makes some thousand objects.
	const few = 15_000
	megabytes := testnet.Sampled[int64](100, 400)
	expectFewObjects(t, cluster, few, func() { load(megabytes) })
	for _, node := range cluster.Nodes() {
		mb := residentMB(t, node.PID())
		t.Logf("%s: %.1f MB", node.Entry().Name, mb)
		if mb >= 48 {
			t.Errorf("%s takes %.1f MB of memory, want less than 48", node.Entry().Name, mb)
		}
	}
}
