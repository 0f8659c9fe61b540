package testnet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// connectPair joins two new namespaces, 10.9.0.1 and 10.9.0.2.
func connectPair(t *testing.T, n *Net, w Wire) (a, b *Namespace) {
	t.Helper()
	a, b = addNamespace(t, n, "a"), addNamespace(t, n, "b")
	err := Connect(t.Context(),
		End{a, "eth0", []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24"), netip.MustParsePrefix("fd00:9::1/64")}},
		End{b, "eth0", []netip.Prefix{netip.MustParsePrefix("10.9.0.2/24"), netip.MustParsePrefix("fd00:9::2/64")}}, w)
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// mustReach fails the test unless the host with this address refuses a connection.
func mustReach(t *testing.T, from *Namespace, addr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), WaitLimit)
	defer cancel()
	_, err := from.Dial(ctx, "tcp", net.JoinHostPort(addr, "9"))
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%s does not reach %s: %v", from.Name(), addr, err)
	}
}

func TestConnectedNamespacesReachEachOtherAtOnce(t *testing.T) {
	a, _ := connectPair(t, newTestNet(t), Wire{})
	for _, addr := range []string{"10.9.0.2", "fd00:9::2"} {
		mustReach(t, a, addr)
	}
}

func TestConnectSetsTheMTUOfBothEnds(t *testing.T) {
	a, b := connectPair(t, newTestNet(t), Wire{MTU: 9000})
	for _, ns := range []*Namespace{a, b} {
		out, err := ns.Exec(t.Context(), "ip", "link", "show", "eth0")
		if err != nil || !strings.Contains(out, "mtu 9000") {
			t.Errorf("%s: %s, %v", ns.Name(), out, err)
		}
	}
}

func TestAddrsListsWhatWasConfigured(t *testing.T) {
	a, _ := connectPair(t, newTestNet(t), Wire{})
	got, err := a.Addrs("eth0")
	want := []netip.Addr{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("fd00:9::1")}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

func TestOffloadProfilesAreWhatEthtoolShows(t *testing.T) {
	a, b := connectPair(t, newTestNet(t), Wire{})
	const (
		tso    = "tcp-segmentation-offload"
		uso    = "tx-udp-segmentation"
		tunnel = "tx-udp_tnl-segmentation"
		csum   = "tx-checksumming"
		gro    = "generic-receive-offload"
	)
	for _, profile := range []struct {
		Offloads
		want map[string]bool
	}{
		{Bare, map[string]bool{tso: false, uso: false, tunnel: false, csum: false, gro: true}},
		{NoTunnel, map[string]bool{tso: true, uso: true, tunnel: false, csum: true, gro: true}},
		{Full, map[string]bool{tso: true, uso: true, tunnel: true, csum: true, gro: true}},
	} {
		for _, ns := range []*Namespace{a, b} {
			if err := ns.SetOffloads(t.Context(), "eth0", profile.Offloads); err != nil {
				t.Fatal(err)
			}
			out, err := ns.Exec(t.Context(), "ethtool", "-k", "eth0")
			if err != nil {
				t.Fatal(err)
			}
			for feature, on := range profile.want {
				if !strings.Contains(out, feature+": "+onOff(on)+"\n") {
					t.Errorf("%s: %s is not %s:\n%s", profile.Offloads, feature, onOff(on), out)
				}
			}
		}
	}
}

func TestUnknownOffloadProfileIsRefused(t *testing.T) {
	a, _ := connectPair(t, newTestNet(t), Wire{})
	if err := a.SetOffloads(t.Context(), "eth0", "half"); err == nil || !strings.Contains(err.Error(), `"half"`) {
		t.Errorf("got %v", err)
	}
}
