package doctor

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"github.com/vishvananda/netlink"

	"weft/internal/hostnet"
	"weft/internal/testnet"
)

// A card that has routes from router advertisements, and forwards, must listen to new ones all the
// same.
func TestIgnoredRouterAdvertisements(t *testing.T) {
	testnet.InNewNamespace(t)
	isNIC = func(link netlink.Link) bool { return link.Attrs().Name == "eth0" }
	t.Cleanup(func() { isNIC = hostnet.IsNIC })
	sysctl := func(name, value string) {
		t.Helper()
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	ip("link", "add", "eth0", "type", "veth", "peer", "name", "far")
	sysctl("eth0/accept_dad", "0")
	sysctl("eth0/forwarding", "1")
	sysctl("eth0/accept_ra", "1")
	ip("link", "set", "far", "up")
	ip("link", "set", "eth0", "up")
	h := &host{}
	expect(t, checkRouterAdverts(t.Context(), h), Skipped, "no IPv6")
	h.Config.ClusterCIDRs = []netip.Prefix{netip.MustParsePrefix("fd00:244::/32")}
	expect(t, checkRouterAdverts(t.Context(), h), OK, "no card")
	ip("-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0", "proto", "ra")
	expect(t, checkRouterAdverts(t.Context(), h), Warning, "eth0 has routes from router advertisements and ignores new ones")
	sysctl("eth0/accept_ra", "2")
	expect(t, checkRouterAdverts(t.Context(), h), OK, "no card")
}

// Runs to an address of this host arrive, and where a filter drops even single datagrams, nothing
// is said of runs.
func TestRunsToThisHostArrive(t *testing.T) {
	testnet.InNewNamespace(t)
	if out, err := exec.CommandContext(t.Context(), "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, addr := range []string{"127.0.0.1", "::1"} {
		if sent, arrived, err := sendRun(netip.MustParseAddr(addr)); err != nil || sent != 21 || arrived != sent {
			t.Errorf("to %s: %d of %d, %v", addr, arrived, sent, err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "nft", "table inet f { chain input { type filter hook input priority 0; udp dport 1-65535 drop; }; }").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, _, err := sendRun(netip.MustParseAddr("127.0.0.1")); !errors.Is(err, errBlocked) {
		t.Errorf("behind a filter: %v", err)
	}
	// Here the kernel has not cut the run yet.
	if out, err := exec.CommandContext(t.Context(), "nft", "flush ruleset; table inet f { chain input { type filter hook input priority 0; udp length > 1300 drop; }; }").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if sent, arrived, err := sendRun(netip.MustParseAddr("127.0.0.1")); err != nil || sent != 21 || arrived != 0 {
		t.Errorf("with a loss: %d of %d, %v", arrived, sent, err)
	}
}
