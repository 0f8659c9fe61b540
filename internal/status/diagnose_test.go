package status_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/internal/family"
	"weft/internal/status"
	"weft/internal/warning"
	"weft/ipam"
)

func peers(states ...string) (all []status.Peer) {
	for i, state := range states {
		p := status.Peer{Name: fmt.Sprintf("node%d", i+2), Link: &status.Link{State: state}}
		if state == "unreachable" {
			p.Error = "it does not answer; open UDP port 9338"
		}
		all = append(all, p)
	}
	return all
}

func TestSummaryAndProblems(t *testing.T) {
	for _, tt := range []struct {
		name     string
		report   status.Report
		summary  string
		problems []string // kind, code and text
	}{
		{name: "all is well", report: status.Report{Ready: true, Peers: peers("up", "idle")}, summary: "ready"},
		{
			name: "not ready comes first, whatever else there is", report: status.Report{NotReady: "weftd is starting", Peers: peers("unreachable")},
			summary:  "NOT READY: weftd is starting",
			problems: []string{"PROBLEM peers_unreachable peer node2 is unreachable: it does not answer; open UDP port 9338"},
		},
		{
			name: "a peer is down, and a warning that pods don't suffer from",
			report: status.Report{Ready: true, Peers: peers("up", "unreachable", "idle"), Warnings: []warning.Warning{
				{Code: "peers_unreachable", Text: "unreachable: node3"}, {Code: "udp_buffers", Text: "small; enlarge them"}}},
			summary: "DEGRADED: 1 of 3 peers unreachable",
			problems: []string{"PROBLEM peers_unreachable peer node3 is unreachable: it does not answer; open UDP port 9338",
				"WARNING udp_buffers small; enlarge them"},
		},
		{
			name: "probes show that a peer is down, and that another's data path is silent",
			report: status.Report{Ready: true, Peers: []status.Peer{
				{Name: "node2", Path: &status.Path{Answered: time.Now(), Silent: true}},
				{Name: "node3", Path: &status.Path{Answered: time.Now(), Silent: true}, Link: &status.Link{State: "up"}},
				{Name: "node4", Path: &status.Path{}},
			}},
			summary: "DEGRADED: 1 of 3 peers unreachable; a peer's data path is silent",
			problems: []string{
				"PROBLEM peers_unreachable peer node2 is unreachable: it answered probes before, and does not now; check that weftd runs there, and that the underlay passes UDP both ways",
				"PROBLEM data_path peer node3 has keys, but does not answer probes on the data path, so packets may get lost; run `weft probe` on both nodes"},
		},
		{
			name:    "many peers are down",
			report:  status.Report{Ready: true, Peers: peers("unreachable", "unreachable", "unreachable", "unreachable", "unreachable", "unreachable", "unreachable")},
			summary: "DEGRADED: 7 of 7 peers unreachable",
			problems: []string{
				"PROBLEM peers_unreachable peer node2 is unreachable: it does not answer; open UDP port 9338",
				"PROBLEM peers_unreachable peer node3 is unreachable: it does not answer; open UDP port 9338",
				"PROBLEM peers_unreachable peer node4 is unreachable: it does not answer; open UDP port 9338",
				"PROBLEM peers_unreachable peer node5 is unreachable: it does not answer; open UDP port 9338",
				"PROBLEM peers_unreachable peer node6 is unreachable: it does not answer; open UDP port 9338",
				"PROBLEM peers_unreachable 2 more peers are unreachable; `weft peers` gives the reasons"},
		},
		{
			name: "what pods suffer from comes before the rest",
			report: status.Report{Ready: true, State: status.State{Rejected: "line 4"}, Warnings: []warning.Warning{
				{Code: "pool_exhausted", Text: "no pod can be added; remove pods"}}, RecentDrops: map[string]uint64{"congestion": 5, "no_keys": 1, "replayed": 2},
				RecentGuardDrops: map[string]uint64{"loopback": 3}},
			summary: "DEGRADED: no pod address is free; weftd drops packets",
			problems: []string{
				"WARNING pool_exhausted no pod can be added; remove pods",
				"DROPS no_keys weftd dropped 1 packet in the last minute, no_keys: no keys are agreed with the peer, and too many packets wait for them, or have waited too long; or a key has sealed as much as it may; `weft peers` gives the reason",
				"PROBLEM list_rejected the list of nodes is NOT UP TO DATE: line 4",
				"DROPS replayed weftd dropped 2 packets in the last minute, replayed: a datagram came twice, or too late to be checked; a few: the underlay duplicates or delays. Many: an attacker replays recorded datagrams",
				"DROPS loopback the guard table dropped 3 packets in the last minute, loopback: a packet from or to 127.0.0.0/8 that didn't come from this node itself; nothing: it is dropped, though kube-proxy and portmap make the kernel route such packets"},
		},
		{
			name:    "a pool that is nearly full",
			report:  status.Report{Ready: true, Leases: status.Leases{Pools: []ipam.PoolUsage{{Family: family.IPv4, Size: 10, Leased: 9}, {Family: family.IPv6, Size: 100, Leased: 89}}}},
			summary: "ready, 1 warning", problems: []string{"PROBLEM pool_nearly_exhausted 9 of 10 IPv4 pod addresses are leased; remove pods, or give the node more addresses"},
		},
		{
			name: "parts that are not as they must be, and one that NOT READY names already",
			report: status.Report{NotReady: "no rights", Host: status.Part{Error: "no rights"}, Guard: status.Part{Error: "it does not exist"},
				Leases: status.Leases{Unreconciled: []string{"kept x"}}, Conflist: status.Part{Error: "read-only"}},
			summary: "NOT READY: no rights",
			problems: []string{"PROBLEM guard the guard table is not as it must be: it does not exist; see weftd's log (journalctl -u weftd)",
				"PROBLEM conflist the conflist is not as it must be: read-only", "PROBLEM lease NOT RECONCILED: kept x"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.report.Diagnose()
			var got []string
			for _, p := range tt.report.Problems {
				got = append(got, p.Kind+" "+p.Code+" "+p.Text)
			}
			if diff := cmp.Diff(tt.problems, got); diff != "" || tt.report.Summary != tt.summary {
				t.Errorf("%q, want %q (-want +got):\n%s", tt.report.Summary, tt.summary, diff)
			}
		})
	}
}
