package testnet

import (
	"net/netip"
	"strings"
	"testing"
)

func TestIperfReportsWhatArrivesOrItsOwnError(t *testing.T) {
	ns := addNamespace(t, newTestNet(t), "a")
	loopback := netip.MustParseAddr("127.0.0.1")
	if _, err := ns.Iperf(t.Context(), loopback, 1); err == nil || !strings.Contains(err.Error(), "unable to connect") {
		t.Errorf("without a server: %v", err)
	}
	server, err := ns.StartIperf(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Kill()
	report, err := ns.Iperf(t.Context(), loopback, 1)
	if err != nil || report.End.Received.Bytes == 0 || len(report.Intervals) == 0 {
		t.Errorf("got %+v, %v", report, err)
	}
}

func TestProcessThatEndsBeforeItIsReadyIsReported(t *testing.T) {
	ns := addNamespace(t, newTestNet(t), "a")
	_, err := ns.StartReady(t.Context(), "ready", "sh", "-c", "echo because >&2; exit 3")
	if err == nil || !strings.Contains(err.Error(), "ended before it was ready") || !strings.Contains(err.Error(), "because") {
		t.Errorf("got %v", err)
	}
}
