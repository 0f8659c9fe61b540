package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/internal/status"
)

// sealedPeers holds one peer in each state.
func sealedPeers() []status.Peer {
	at := netip.MustParseAddrPort
	return []status.Peer{
		{Name: "node2", Endpoint: at("192.168.77.2:9338"), Link: &status.Link{
			State: "up", KeysBegan: now.Add(-12*time.Minute - 3400*time.Millisecond), Heard: now.Add(time.Millisecond), RTT: 412,
			KeysOverdue: true, Error: "node2 does not answer", Refused: 7},
			Traffic: status.Traffic{SentPackets: 12345, SentBytes: 3 << 30, ReceivedPackets: 1, ReceivedBytes: 84},
			Path:    &status.Path{MTU: 1300, Largest: 1440, Answered: now, Loss: 0.25}},
		{Name: "node3", Endpoint: at("192.168.77.3:9338"), Link: &status.Link{
			State: "unreachable", KeysBegan: now.Add(-time.Minute), Heard: now.Add(-12 * time.Second),
			Error: "timeout: no recent\n\x1b[31mnetwork activity", Failures: 3, Retry: now.Add(3456 * time.Millisecond)},
			Traffic: status.Traffic{SentPackets: 5, SentBytes: 420}},
		{Name: "node4", Endpoint: at("[fd00:77::4]:9338"), Link: &status.Link{
			State: "unreachable", Error: "the node there has another key", Failures: 1, Retry: now.Add(-time.Second)}},
		{Name: "node5", Endpoint: at("192.168.77.5:9338"), Link: &status.Link{State: "idle", KeysBegan: now.Add(-7 * time.Minute), Heard: now.Add(-6 * time.Minute)}},
		{Name: "node6", Endpoint: at("192.168.77.6:9338"), Link: &status.Link{State: "agreeing"}},
		{Name: "node7", Endpoint: at("192.168.77.7:9338"), Link: &status.Link{State: "no keys"}},
	}
}

func TestPeersInEveryState(t *testing.T) {
	var got strings.Builder
	if err := printPeers(&got, sealedPeers(), now); err != nil {
		t.Fatal(err)
	}
	want := `
NAME   ENDPOINT           STATE        HEARD  KEYS AGE  RTT    LOSS  MTU   SENT                    RECEIVED        REFUSED
node2  192.168.77.2:9338  up           0s     12m3s     412µs  25 %  1300  12345 packets, 3.0 GiB  1 packet, 84 B  7
  KEYS OVERDUE: node2 does not answer; retried with the next packet for it
node3  192.168.77.3:9338  unreachable  12s    1m0s      -      -     -     5 packets, 420 B        0 packets, 0 B  0
  failed 3 times in a row: timeout: no recent ` + "\ufffd" + `[31mnetwork activity; retried in 3.5s if there are packets for it
node4  [fd00:77::4]:9338  unreachable  -      -         -      -     -     0 packets, 0 B          0 packets, 0 B  0
  the node there has another key; retried with the next packet for it
node5  192.168.77.5:9338  idle         6m0s   7m0s      -      -     -     0 packets, 0 B          0 packets, 0 B  0
node6  192.168.77.6:9338  agreeing     -      -         -      -     -     0 packets, 0 B          0 packets, 0 B  0
node7  192.168.77.7:9338  no keys      -      -         -      -     -     0 packets, 0 B          0 packets, 0 B  0
`
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Without keys, probes show whether a peer lives.
func TestVXLANPeersInEveryState(t *testing.T) {
	at := netip.MustParseAddrPort
	var got strings.Builder
	err := printPeers(&got, []status.Peer{
		{Name: "node2", Endpoint: at("192.168.77.2:9338"), Path: &status.Path{MTU: 1450, Answered: now.Add(-2 * time.Second), ProbeRTT: 350}, Traffic: status.Traffic{SentPackets: 1, SentBytes: 84}},
		{Name: "node3", Endpoint: at("192.168.77.3:9338"), Path: &status.Path{MTU: 1450, Answered: now.Add(-time.Minute), Silent: true, ProbeRTT: 350, Loss: 1}},
		{Name: "node4", Endpoint: at("192.168.77.4:9338"), Path: &status.Path{MTU: 1450, Answered: now.Add(-time.Hour)}},
		{Name: "node5", Endpoint: at("192.168.77.5:9338"), Path: &status.Path{MTU: 1450}},
		{Name: "kernel", Endpoint: at("192.168.77.6:9338")},
	}, now)
	want := `
NAME    ENDPOINT           STATE        HEARD   KEYS AGE  RTT    LOSS   MTU   SENT            RECEIVED        REFUSED
node2   192.168.77.2:9338  up           2s      -         350µs  0 %    1450  1 packet, 84 B  0 packets, 0 B  -
node3   192.168.77.3:9338  unreachable  1m0s    -         -      100 %  1450  0 packets, 0 B  0 packets, 0 B  -
  it answered probes before, and does not now; check that weftd runs there, and that the underlay passes UDP both ways
node4   192.168.77.4:9338  idle         1h0m0s  -         -      0 %    1450  0 packets, 0 B  0 packets, 0 B  -
node5   192.168.77.5:9338  unknown      -       -         -      -      -     0 packets, 0 B  0 packets, 0 B  -
kernel  192.168.77.6:9338  unknown      -       -         -      -      -     0 packets, 0 B  0 packets, 0 B  -
`
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), got.String()); err != nil || diff != "" {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
}

func TestPeersThatCannotBeWrittenAreAnError(t *testing.T) {
	full := fullDisk(t)
	if err := printPeers(full, sealedPeers(), now); err == nil {
		t.Error("a full disk was not noticed for sealed peers")
	}
}

// fakeWeftd answers on a socket until the test ends.
func fakeWeftd(t *testing.T, report status.Report, rotate status.Rotate) (socket string) {
	t.Helper()
	return serveWeftd(t, status.Daemon{Report: func() status.Report { return report }, Rotate: rotate})
}

func serveWeftd(t *testing.T, d status.Daemon) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), status.SocketName)
	listener, err := status.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	server := http.Server{Handler: status.Handler(d), ReadHeaderTimeout: time.Second}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return socket
}

func TestPeersAsJSON(t *testing.T) {
	socket := fakeWeftd(t, healthy(), nil)
	expectOutcome(t, socket, []string{"peers", "-o", "json", "node2"}, 0, `
[
  {
    "name": "node2",
    "endpoint": "192.168.77.2:9338",
    "prefixes": [
      "10.244.2.0/24",
      "192.168.77.2/32"
    ],
    "sentPackets": 0,
    "sentBytes": 0,
    "receivedPackets": 0,
    "receivedBytes": 0,
    "rates": {
      "sentPackets": 0,
      "sentBytes": 2048,
      "receivedPackets": 0,
      "receivedBytes": 10
    },
    "path": {
      "mtu": 1450,
      "largestMTU": 0,
      "answered": "2026-01-02T03:04:05Z",
      "probeRTTMicroseconds": 350,
      "loss": 0
    }
  }
]
`, "")
	expectOutcome(t, socket, []string{"peers", "nod2"}, 1, "", `weft: no peer is named "nod2"; did you mean node2?`+"\n")
	expectOutcome(t, socket, []string{"peers", "-o", "wide"}, 2, "", `weft: unknown output format "wide"; there are text and json; `+"`weft peers --help` shows how to call it\n")
}

func TestPeersForProgramsHaveUnitsInTheirNames(t *testing.T) {
	report := healthy()
	report.Encapsulation, report.Peers = "sealed", sealedPeers()[1:2]
	report.Peers[0].RTT, report.Peers[0].Key = 1500, "0a0b"
	code, stdout, stderr := asWeft(t, "--socket", fakeWeftd(t, report, nil), "peers", "-o", "json")
	var got []map[string]any
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != 0 || stderr != "" {
		t.Fatalf("%v: exit status %d, stdout %q, stderr %q", err, code, stdout, stderr)
	}
	want := []map[string]any{{
		"name": "node3", "endpoint": "192.168.77.3:9338", "prefixes": nil, "key": "0a0b", "state": "unreachable",
		"keysBegan": "2026-01-02T03:03:05Z", "heard": "2026-01-02T03:03:53Z", "rttMicroseconds": 1500.0, "sentPackets": 5.0, "sentBytes": 420.0,
		"receivedPackets": 0.0, "receivedBytes": 0.0, "refusedDatagrams": 0.0,
		"error": "timeout: no recent\n\x1b[31mnetwork activity", "failedAttempts": 3.0, "nextAttempt": "2026-01-02T03:04:08.456Z",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestNoPeersAreAnEmptyList(t *testing.T) {
	report := healthy()
	report.Encapsulation, report.Peers = "sealed", []status.Peer{}
	socket := fakeWeftd(t, report, nil)
	expectOutcome(t, socket, []string{"peers", "-o", "json"}, 0, "[]\n", "")
	expectOutcome(t, socket, []string{"peers"}, 0, "NAME  ENDPOINT  STATE  HEARD  KEYS AGE  RTT  LOSS  MTU  SENT  RECEIVED  REFUSED\n", "")
}

func expectOutcome(t *testing.T, socket string, args []string, code int, stdout, stderr string) {
	t.Helper()
	gotCode, gotOut, gotErr := asWeft(t, append([]string{"--socket", socket}, args...)...)
	if gotCode != code || gotErr != stderr {
		t.Errorf("weft %v: exit status %d, stderr %q; want %d, %q", args, gotCode, gotErr, code, stderr)
	}
	if diff := cmp.Diff(strings.TrimPrefix(stdout, "\n"), gotOut); diff != "" {
		t.Errorf("weft %v (-want +got):\n%s", args, diff)
	}
}
