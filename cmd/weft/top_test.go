package main

import (
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/internal/status"
	"weft/router"
)

// growing is a node whose counters have grown n times.
func growing(n uint64) status.Report {
	r := healthy()
	r.Peers[0].Traffic = status.Traffic{SentPackets: 10 * n, SentBytes: 1000 * n, ReceivedPackets: n, ReceivedBytes: 100 * n}
	r.Peers[1].Traffic = status.Traffic{SentPackets: 100 * n, SentBytes: 2_000_000 * n}
	r.Outbound = router.Traffic{Packets: 110 * n, Bytes: 2_001_000 * n}
	r.Inbound = router.Traffic{Packets: n, Bytes: 100 * n}
	r.Lanes = []router.Stats{{Outbound: r.Outbound}, {Inbound: r.Inbound}}
	r.Drops, r.GuardDrops = map[string]uint64{"no_keys": 5 * n, "malformed": 3}, map[string]uint64{"loopback": n}
	r.Diagnose()
	return r
}

func TestSnapshotHasTheBusiestFirst(t *testing.T) {
	var got strings.Builder
	if err := printSnapshot(&got, "text", compare(growing(1), growing(3), 2, now)); err != nil {
		t.Fatal(err)
	}
	want := now.Local().Format(time.TimeOnly) + `  node1, ready

                           STATE    SENT/s             RECEIVED/s  
total                               110     16.0 Mb/s  1           800 b/s
lane 0                              110     16.0 Mb/s  0           0 b/s
lane 1                              0       0 b/s      1           800 b/s
a-node-with-a-longer-name  unknown  100     16.0 Mb/s  0           0 b/s
node2                      up       10      8.0 kb/s   1           800 b/s
dropped: 5.0 no_keys/s
dropped by the guard table: 1.0 loopback/s

`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := printSnapshot(fullDisk(t), "text", snapshot{}); err == nil {
		t.Error("a full disk was not noticed")
	}
}

func TestTopEndsAfterACount(t *testing.T) {
	var asked atomic.Uint64
	socket := serveWeftd(t, status.Daemon{Report: func() status.Report { return growing(asked.Add(1)) }})
	code, stdout, stderr := asWeft(t, "--socket", socket, "top", "-o", "json", "-n", "3", "--interval", "100ms")
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if code != 0 || stderr != "" || len(lines) != 3 {
		t.Fatalf("exit status %d, %q, %s; want three lines", code, stderr, stdout)
	}
	for _, line := range lines {
		var s snapshot
		if err := json.Unmarshal([]byte(line), &s); err != nil || s.Total.SentPackets <= 0 || len(s.Peers) != 2 || s.Drops["no_keys"] <= 0 {
			t.Errorf("%v: %s", err, line)
		}
	}
	for _, args := range [][]string{{"top", "--interval=1ms"}, {"top", "-n=-1"}} {
		if code, _, stderr := asWeft(t, args...); code != 2 || !strings.Contains(stderr, "; write ") {
			t.Errorf("weft %v: exit status %d, %q", args, code, stderr)
		}
	}
}
