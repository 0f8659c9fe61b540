package main_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/testnet"
)

// TestWhatWeftdDoesNotReadIsCounted: a weftd that gets no processor time loses packets before it reads
// them, from pods and from peers.
func TestWhatWeftdDoesNotReadIsCounted(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	expectPings(t, pod1, pod2)
	for _, tc := range []struct {
		reason    string
		at        *testnet.Node
		datagrams int // more than its queue has room for
	}{
		{"tun_queue_full", cluster.Nodes()[0], 5_000},
		{"receive_queue_full", cluster.Nodes()[1], 60_000},
	} {
		conn, err := pod1.Dial(t.Context(), "udp", netip.AddrPortFrom(addrOf(t, pod2, false), 9).String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = unix.Kill(tc.at.PID(), unix.SIGSTOP)
		for i := range tc.datagrams {
			_, _ = conn.Write(make([]byte, 1300))
			if i%50 == 0 {
				time.Sleep(time.Millisecond) // for the weftd that goes on
			}
		}
		_ = unix.Kill(tc.at.PID(), unix.SIGCONT)
		eventually(t, tc.reason, func() error {
			shown, err := tc.at.Metrics(t.Context())
			if got := shown[fmt.Sprintf("weft_drops_total{reason=%q}", tc.reason)]; got == "0" || got == "" {
				return errors.Join(err, fmt.Errorf("weftd has counted %q", got))
			}
			if got := weft(t, tc.at, "status").stdout; !strings.Contains(head(got), "DEGRADED: weftd drops packets") || !strings.Contains(head(got), tc.reason) {
				return errors.New(got)
			}
			return nil
		})
	}
}
