package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/internal/family"
	"weft/internal/status"
	"weft/internal/warning"
	"weft/ipam"
	"weft/router"
)

// TestMain lets the test binary be weft itself, so that exit statuses can be seen.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_AS_WEFT") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func healthy() status.Report {
	return status.Report{
		Version: "1.2.3", Node: "node1", Ready: true, Encapsulation: "vxlan",
		Listen:   netip.MustParseAddrPort("0.0.0.0:9338"),
		TUN:      status.TUN{Name: "weft0", Driver: "wireguard", Lanes: 2, MTU: 1450},
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:244:1::/64")},
		Peers: []status.Peer{
			{Name: "node2", Endpoint: netip.MustParseAddrPort("192.168.77.2:9338"), Prefixes: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24"), netip.MustParsePrefix("192.168.77.2/32")}, Rates: &status.Rates{SentBytes: 2048, ReceivedBytes: 10}, Path: &status.Path{MTU: 1450, Answered: now, ProbeRTT: 350}},
			{Name: "a-node-with-a-longer-name", Endpoint: netip.MustParseAddrPort("[fd00:77::3]:9338"), Prefixes: []netip.Prefix{netip.MustParsePrefix("10.244.3.0/24")}},
		},
		State:  status.State{Source: "/etc/weft/nodes.yaml", Applied: now.Add(-26*time.Hour - 3*time.Second - 700*time.Millisecond)},
		Leases: status.Leases{Held: 12, CoolingDown: 3, Pools: []ipam.PoolUsage{{Family: family.IPv4, Size: 252, Leased: 12}, {Family: family.IPv6, Size: 1 << 63}}},
		Stats:  router.Stats{Outbound: router.Traffic{Packets: 12345, Bytes: 3 << 30}, Inbound: router.Traffic{Packets: 1, Bytes: 84}},
	}
}

func TestStatusOfAHealthyNode(t *testing.T) {
	expectStatus(t, healthy(), `
node           node1, ready
version        1.2.3
pod CIDRs      10.244.1.0/24, fd00:244:1::/64
datagrams      vxlan on 0.0.0.0:9338
TUN            weft0, MTU 1450, driver wireguard, 2 lanes
list of nodes  /etc/weft/nodes.yaml, applied 26h0m4s ago
host network   routes, rules and addresses are there
guard table    it is there
conflist       it is written
leases         12 held, 3 cooling down; 12 of 252 IPv4 addresses leased (4 %)
peers          1 unknown, 1 up
outbound       12345 packets, 3.0 GiB
inbound        1 packet, 84 B

PEER                       ENDPOINT           STATE    RTT    SENT       RECEIVED  PREFIXES
node2                      192.168.77.2:9338  up       350µs  16.4 kb/s  80 b/s    10.244.2.0/24, 192.168.77.2/32
a-node-with-a-longer-name  [fd00:77::3]:9338  unknown  -      -          -         10.244.3.0/24
`)
}

func TestStatusOfANodeInTrouble(t *testing.T) {
	r := healthy()
	r.Ready, r.NotReady = false, "the route to 10.244.2.0/24 is taken\nsysctl net.ipv4.ip_forward must be 1"
	r.Warnings = []warning.Warning{{Code: "key_changed", Text: "the key of node node2 changed\x1b; accept it with `weft confirm`"}, {Code: "x", Text: "another"}}
	r.State.Rejected = "/etc/weft/nodes.yaml:4: nodes[0].podCIDRs[0]: \"a\" is not an IP prefix\n/etc/weft/nodes.yaml:7: nodes[1].colour: unknown key"
	r.TUN.Lanes = 1
	r.Leases = status.Leases{Unreconciled: []string{
		"kept abc/eth0 (pod default/web\x1b) 10.244.1.2: its veth is gone: no space left on device",
		"kept weft0123456789a: its ADD did not finish"}}
	r.Peers = nil
	r.Drops = map[string]uint64{"no_route": 17, "malformed": 1, "unknown_peer": 1234567}
	r.RecentDrops = map[string]uint64{"no_route": 3}
	r.GuardDrops = map[string]uint64{"loopback": 2, "local_sender": 0}
	r.Host = status.Part{Error: r.NotReady}
	r.Guard = status.Part{Error: "it does not exist"}
	r.Conflist = status.Part{Error: status.NotYet}
	expectStatus(t, r, `
node              node1, NOT READY: the route to 10.244.2.0/24 is taken
                  sysctl net.ipv4.ip_forward must be 1
PROBLEM           the guard table is not as it must be: it does not exist; see weftd's log (journalctl -u weftd)
PROBLEM           the list of nodes is NOT UP TO DATE: /etc/weft/nodes.yaml:4: nodes[0].podCIDRs[0]: "a" is not an IP prefix
                  /etc/weft/nodes.yaml:7: nodes[1].colour: unknown key
WARNING           the key of node node2 changed�; accept it with `+"`weft confirm`"+`
WARNING           another
PROBLEM           NOT RECONCILED: kept abc/eth0 (pod default/web`+"\ufffd"+`) 10.244.1.2: its veth is gone: no space left on device
PROBLEM           NOT RECONCILED: kept weft0123456789a: its ADD did not finish
DROPS             weftd dropped 3 packets in the last minute, no_route: no node owns the destination; check that the node is in the list
version           1.2.3
pod CIDRs         10.244.1.0/24, fd00:244:1::/64
datagrams         vxlan on 0.0.0.0:9338
TUN               weft0, MTU 1450, driver wireguard, 1 lane
list of nodes     /etc/weft/nodes.yaml, applied 26h0m4s ago, not up to date
host network      NOT AS IT MUST BE: see above
guard table       NOT AS IT MUST BE: see above
conflist          not yet: weftd is starting
leases            0 held, 0 cooling down
outbound          12345 packets, 3.0 GiB
inbound           1 packet, 84 B
dropped           1 malformed
                  17 no_route, 3 in the last minute
                  1234567 unknown_peer
dropped by guard  2 loopback

PEER  ENDPOINT  STATE  RTT  SENT  RECEIVED  PREFIXES
`)
}

// Of thousands of peers those come first with which something is wrong, then the busiest.
func TestStatusListsTwentyPeers(t *testing.T) {
	r := healthy()
	r.Peers = nil
	for i := range 30 {
		p := status.Peer{Name: fmt.Sprintf("node%02d", i), Rates: &status.Rates{SentBytes: uint64(i)}, Link: &status.Link{State: "up"}}
		if i == 7 {
			p.Link = &status.Link{State: "unreachable", Error: "no answer"}
		}
		r.Peers = append(r.Peers, p)
	}
	r.Diagnose()
	var got strings.Builder
	if err := printStatus(&got, r, now); err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(got.String(), "PREFIXES\n")
	lines := strings.Split(strings.TrimSpace(table), "\n")
	if len(lines) != 21 || !strings.HasPrefix(lines[0], "node07 ") || !strings.HasPrefix(lines[1], "node29 ") || lines[20] != "and 10 more; `weft peers` lists all" {
		t.Errorf("the peers are\n%s", table)
	}
	if !strings.Contains(got.String(), "\npeers          1 unreachable, 29 up\n") {
		t.Errorf("peers by state are missing in\n%s", got.String())
	}
}

func expectStatus(t *testing.T, r status.Report, want string) {
	t.Helper()
	r.Diagnose()
	var got strings.Builder
	if err := printStatus(&got, r, now); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// fullDisk is a file that takes nothing.
func fullDisk(t *testing.T) *os.File {
	t.Helper()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { full.Close() })
	return full
}

func TestAStatusThatCannotBeWrittenIsAnError(t *testing.T) {
	full := fullDisk(t)
	if err := printStatus(full, healthy(), now); err == nil {
		t.Error("a full disk was not noticed")
	}
}

// asWeft runs weft and returns its exit status and what it wrote.
func asWeft(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	// The race detector would have each process wait for a second at its end.
	cmd.Env = append(os.Environ(), "TEST_AS_WEFT=1", "GORACE=atexit_sleep_ms=0")
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func TestExitStatusOfMisuseAndFailure(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "weftd.sock")
	const help = "; `weft status --help` shows how to call it\n"
	for _, tt := range []struct {
		args   []string
		code   int
		stderr string // its beginning
	}{
		{[]string{"--socket", socket, "status"}, 1, "weft: no weftd answers at " + socket + "; is it running (systemctl status weftd), and is its runDir another (--socket)?\n"},
		{[]string{"status", "--colour"}, 2, "weft: unknown flag: --colour" + help},
		{[]string{"status", "--output=xml"}, 2, `weft: unknown output format "xml"; there are text and json` + help},
		{[]string{"status", "node1"}, 2, `weft: unknown command "node1" for "weft status"` + help},
		{[]string{"statsu"}, 2, `weft: unknown command "statsu" for "weft"; did you mean status?; ` + "`weft --help` shows how to call it\n"},
		{[]string{"--version"}, 0, ""},
		{[]string{"--help"}, 0, ""},
		{nil, 0, ""},
	} {
		code, stdout, stderr := asWeft(t, tt.args...)
		if code != tt.code || !strings.HasPrefix(stderr, tt.stderr) || (tt.stderr == "") != (stderr == "") || (code == 0) == (stdout == "") {
			t.Errorf("weft %v: exit status %d, stdout %q, stderr %q; want %d, %q", tt.args, code, stdout, stderr, tt.code, tt.stderr)
		}
	}
}
