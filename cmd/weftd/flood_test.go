package main_test

import (
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/testnet"
)

// goodput is what one TCP stream moves between two pods in 2 s, in Gb/s.
func goodput(t *testing.T, from, to *testnet.Pod) float64 {
	t.Helper()
	server, err := to.StartIperf(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Kill()
	report, err := from.Iperf(t.Context(), addrOf(t, to, false), 2)
	if err != nil {
		t.Fatal(err)
	}
	return report.End.Received.BitsPerSecond / 1e9
}

// flood sends datagrams as fast as one thread can until stop is closed, and returns how
// many, and how much processor time that took.
func flood(t *testing.T, from *net.UDPConn, to netip.AddrPort, stop <-chan struct{}) (sent int, took time.Duration) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const size, run = 1000, 60
	payload := make([]byte, size*run)
	for i := range run { // like sealed ones, of a session that there is not
		payload[i*size] = 1
	}
	before := threadTime(t)
	for {
		select {
		case <-stop:
			return sent, threadTime(t) - before
		default:
		}
		if err := sendRun(from, payload, size, to); err == nil {
			sent += run
		}
	}
}

// threadTime is how long this thread has run (getrusage(2)). The kernel's work on a
// datagram up to the socket at the other end is done by the thread that sends it.
func threadTime(t *testing.T) time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &usage); err != nil {
		t.Error(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// A flood from a non-peer source costs processor time, if only in the kernel. A stream
// between pods continues beside it, and most of the flood is dropped before weftd reads it.
// The test only logs the stream's goodput, which depends on the machine.
func TestNonPeerFloodLeavesPeersTheirShare(t *testing.T) {
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true})
	pod1, pod2 := addPod(t, cluster.Nodes()[0], "a"), addPod(t, cluster.Nodes()[1], "b")
	stranger, node2 := socketAt(t, cluster.Outside, 0), cluster.Nodes()[1]
	besideFlood(t, pod1, pod2, stranger, node2.Entry().Endpoint)
	if n := number(t, metric(t, node2, `weft_drops_total{reason="unknown_index"}`)); n == 0 {
		t.Error("nothing of the flood came as far as weftd")
	}
	if n := number(t, metric(t, node2, `weft_guard_drops_total{counter="nonpeer_flood"}`)); n == 0 {
		t.Error("all of the flood came as far as weftd")
	}
}

// besideFlood logs how much of its goodput a TCP stream keeps beside a flood, as a share of
// what the processor time that the flood leaves would let it.
func besideFlood(t *testing.T, from, to *testnet.Pod, stranger *net.UDPConn, victim netip.AddrPort) {
	t.Helper()
	without := goodput(t, from, to)
	stop, ended := make(chan struct{}), make(chan struct{})
	var sent int
	var took time.Duration
	began := time.Now()
	go func() {
		defer close(ended)
		sent, took = flood(t, stranger, victim, stop)
	}()
	with := goodput(t, from, to)
	close(stop)
	<-ended
	elapsed := time.Since(began).Seconds()
	left := 1 - took.Seconds()/elapsed/float64(runtime.NumCPU())
	t.Logf("%.2f Gb/s without, %.2f Gb/s beside %.0f thousand datagrams a second, which left %.0f %% of the processors: %.2f of what was to be expected",
		without, with, float64(sent)/elapsed/1000, left*100, with/without/left)
	if with == 0 {
		t.Error("nothing passes beside a flood")
	}
}
