package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"testing"

	"golang.org/x/sync/errgroup"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"weft/internal/marks"
)

func TestPodsReachEachOtherByLeases(t *testing.T) {
	begin(t)
	one, other, remote := run(t, node1, node1.sandbox("one")), run(t, node1, node1.sandbox("other")), run(t, node2, node2.sandbox("remote"))
	for _, p := range []*pod{one, other, remote} {
		if lease := p.lease(t); len(p.addrs) != 2 || !slices.Equal(p.addrs, lease.Addresses) {
			t.Errorf("containerd reports the addresses %v, leased are %v", p.addrs, lease.Addresses)
		}
	}
	server, client, far := one.startServer(t), other.start(t, "client", "sleep", "86400"), remote.startServer(t)
	for family, addr := range one.addrs {
		at := netip.AddrPortFrom(addr, serverPort)
		expectAnswer(t, "from a pod of the same node", client, at, answer{"one", other.addrs[family]})
		expectAnswer(t, "from a pod of another node", far, at, answer{"one", remote.addrs[family]})
		expectAnswer(t, "from the pod itself", server, at, answer{"one", addr})
		expectAnswer(t, "to a pod of another node", server, netip.AddrPortFrom(remote.addrs[family], serverPort), answer{"remote", addr})
	}
}

// weft-cni alone speaks a newer CNI than containerd 1.6 does.
func TestPodsNeedNoPluginBehindWeftCNI(t *testing.T) {
	begin(t)
	expectReached(t, node1, "from another node", run(t, alone, alone.sandbox("pod")).addrs)
}

func TestContainersOfOnePodShareLocalhost(t *testing.T) {
	begin(t)
	p := run(t, node1, node1.sandbox("pod"))
	p.startServer(t)
	client := p.start(t, "client", "sleep", "86400")
	for _, localhost := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()} {
		expectAnswer(t, "from the other container", client, netip.AddrPortFrom(localhost, serverPort), answer{"pod", localhost})
	}
}

const nodePort = 8081

// serveOn serves on a machine itself, until the test ends, what startServer serves in a
// pod.
func serveOn(t *testing.T, m *machine) {
	t.Helper()
	listener, err := m.Listen(t.Context(), "tcp", fmt.Sprintf("[::]:%d", nodePort))
	if err != nil {
		t.Fatal(err)
	}
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, m.Name(), netip.MustParseAddrPort(r.RemoteAddr).Addr().Unmap())
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
}

func TestNodesAndPodsReachEachOther(t *testing.T) {
	begin(t)
	p := run(t, node1, node1.sandbox("pod"))
	client := p.startServer(t)
	// A node speaks to pods under its overlay address, and is spoken to under its own.
	overlay := map[*machine][]netip.Addr{
		node1: {netip.MustParseAddr("10.244.1.1"), netip.MustParseAddr("fd00:244:1::1")},
		node2: {netip.MustParseAddr("10.244.2.1"), netip.MustParseAddr("fd00:244:2::1")},
	}
	for number, m := range []*machine{node1, node2} {
		serveOn(t, m)
		endpoint, other := underlay(number + 1)[0], underlay(number + 1)[1]
		for family, addr := range p.addrs {
			expectAnswer(t, "from "+m.Name(), outsider{m.Namespace}, netip.AddrPortFrom(addr, serverPort), answer{"pod", overlay[m][family]})
			expectAnswer(t, "to "+m.Name(), client, netip.AddrPortFrom(overlay[m][family], nodePort), answer{m.Name(), addr})
		}
		expectAnswer(t, "to "+m.Name(), client, netip.AddrPortFrom(endpoint, nodePort), answer{m.Name(), p.addrs[0]})
		// A node's further addresses are outside: what goes there from another node is
		// masqueraded.
		seen := p.addrs[1]
		if m != node1 {
			seen = underlay(1)[1]
		}
		expectAnswer(t, "to "+m.Name(), client, netip.AddrPortFrom(other, nodePort), answer{m.Name(), seen})
	}
}

func TestBandwidthAnnotationsLimitPods(t *testing.T) {
	begin(t)
	run(t, node1, withEverything(node1.sandbox("pod")))
	qdiscs, err := node1.run(t.Context(), "sh", "-c", fmt.Sprintf(
		"for link in $(ip -o link show group %d | cut -d: -f2 | cut -d@ -f1) $(ip -o link show type ifb | cut -d: -f2); do tc qdisc show dev $link; done", marks.PodLinkGroup))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"qdisc tbf .* rate 10Mbit", "qdisc tbf .* rate 20Mbit"} {
		if !regexp.MustCompile(want).MatchString(qdiscs) {
			t.Errorf("no %q among the pod's queues:\n%s", want, qdiscs)
		}
	}
}

func TestTwentyPodsStartAtOnceAndGoAtOnce(t *testing.T) {
	begin(t)
	pods := make([]*pod, 20)
	var group errgroup.Group
	for i := range pods {
		group.Go(func() (err error) {
			pods[i], err = node1.runPod(t.Context(), node1.sandbox(fmt.Sprintf("pod%d", i)))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	holders := map[netip.Addr]*pod{}
	for _, p := range pods {
		if status, err := p.status(t.Context()); err != nil || status.State != cri.PodSandboxState_SANDBOX_READY {
			t.Errorf("%s is not ready: %v, %v", p.config.Metadata.Name, status, err)
		}
		for _, addr := range p.addrs {
			if other := holders[addr]; other != nil {
				t.Errorf("%s and %s both have %s", p.config.Metadata.Name, other.config.Metadata.Name, addr)
			}
			holders[addr] = p
		}
	}
	expectReached(t, node2, "from the other node", slices.Collect(maps.Keys(holders)))
	for _, p := range pods {
		group.Go(func() error { return p.remove(t.Context()) })
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}
