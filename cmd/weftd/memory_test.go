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

func TestFourLanesUnderLoadAllocateNothingPerPacketAndStaySmall(t *testing.T) {
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
	load(40) // whatever is allocated once
	before := make([]float64, 2)
	for i, node := range cluster.Nodes() {
		before[i] = number(t, metric(t, node, "go_memstats_mallocs_total"))
	}
	const megabytes, segment = 400, 1400
	load(megabytes)
	for i, node := range cluster.Nodes() {
		allocated := number(t, metric(t, node, "go_memstats_mallocs_total")) - before[i]
		if most := float64(megabytes<<20/segment) / 20; allocated > most { // the two readings make 2,000 each
			t.Errorf("%s made %.0f objects while %d MB passed, want less than one for twenty packets: %.0f",
				node.Entry().Name, allocated, megabytes, most)
		}
		t.Logf("%s: %.0f objects, %.1f MB", node.Entry().Name, allocated, residentMB(t, node.PID()))
		if mb := residentMB(t, node.PID()); mb >= 40 {
			t.Errorf("%s takes %.1f MB of memory, want less than 40", node.Entry().Name, mb)
		}
	}
}
