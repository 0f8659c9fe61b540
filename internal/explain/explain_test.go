package explain_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/fib"
	"weft/internal/explain"
	"weft/internal/hostcheck"
	"weft/internal/hostnet"
	"weft/internal/marks"
	"weft/peer"
)

// fakeKernel has the ways of a node with one pod, and drops what a test says.
type fakeKernel struct {
	ways  map[string]hostnet.Way // by destination; none: unroutable
	links map[string]hostcheck.Interface
	drops map[string]hostcheck.Drop // by hook, and for a datagram "datagram " before it
	asked []string
}

func (k *fakeKernel) Way(l hostnet.Lookup) (hostnet.Way, error) {
	way, ok := k.ways[l.Destination.String()]
	if !ok {
		return way, hostnet.Unroutable{Why: "the kernel has no route"}
	}
	return way, nil
}

func (k *fakeKernel) Interface(name string) hostcheck.Interface { return k.links[name] }

func (k *fakeKernel) Judge(hook string, p hostcheck.Packet) (hostcheck.Drop, bool) {
	if p.Untracked {
		hook = "datagram " + hook
	}
	k.asked = append(k.asked, hook+" "+p.In.Name+">"+p.Out.Name+" "+p.Source.String())
	d, drops := k.drops[hook]
	return d, drops
}

func (k *fakeKernel) Masquerades(p hostcheck.Packet) bool { return p.Out.Name == "eth0" }

const veth = "weft0123456789a"

func node(t *testing.T) (explain.Node, *fakeKernel) {
	t.Helper()
	prefix, endpoint, addr := netip.MustParsePrefix, netip.MustParseAddrPort, netip.MustParseAddr
	table, err := fib.New(
		&peer.Peer{Name: "node1", Endpoint: endpoint("192.0.2.1:9338"), Prefixes: []netip.Prefix{prefix("10.244.1.0/24"), prefix("192.0.2.1/32")}},
		[]*peer.Peer{{Name: "node2", Endpoint: endpoint("192.0.2.2:9338"), Prefixes: []netip.Prefix{prefix("10.244.2.0/24"), prefix("192.0.2.2/32")}}})
	if err != nil {
		t.Fatal(err)
	}
	way := func(device, source string, mtu, routeMTU, group int) hostnet.Way {
		w := hostnet.Way{KernelRoute: hostnet.KernelRoute{Type: "unicast", Device: device, Prefix: prefix("0.0.0.0/0"), Table: 254, MTU: routeMTU}, DeviceMTU: mtu, Group: group}
		if source != "" {
			w.Source = addr(source)
		}
		return w
	}
	k := &fakeKernel{
		ways: map[string]hostnet.Way{
			"10.244.1.7": way(veth, "", 1440, 0, marks.PodLinkGroup), "10.244.2.9": way("weft0", "10.244.1.1", 1440, 0, 0),
			"198.51.100.1": way("eth0", "192.0.2.1", 1500, 0, 0), "192.0.2.2": way("eth0", "192.0.2.1", 1500, 0, 0),
			"192.0.2.1": {KernelRoute: hostnet.KernelRoute{Type: "local", Device: "lo"}},
		},
		links: map[string]hostcheck.Interface{veth: {Name: veth, Kind: "veth", Group: marks.PodLinkGroup}, "weft0": {Name: "weft0"}, "eth0": {Name: "eth0"}},
		drops: map[string]hostcheck.Drop{},
	}
	return explain.Node{
		Kernel: k, Name: "node1", TUN: "weft0", Encapsulation: "sealed", Port: 9338, Mask: marks.DefaultMask, ClusterCIDRs: []netip.Prefix{prefix("10.244.0.0/16")}, Table: table,
		Pods: map[netip.Addr]explain.Pod{addr("10.244.1.7"): {Name: "shop/web", Link: veth}}, Peers: map[string]explain.Peer{"node2": {State: "up"}},
	}, k
}

func TestVerdicts(t *testing.T) {
	for _, tt := range []struct {
		name             string
		from, to         string
		change           func(*explain.Node, *fakeKernel)
		verdict          explain.Verdict
		step, stepsDoNot string // what one step says, and no step
	}{
		{name: "to a peer's pod", from: "10.244.1.7", to: "10.244.2.9", step: "packets of up to 1440 bytes",
			verdict: explain.Verdict{Delivered: true, Text: "sent to node2 at 192.0.2.2:9338, encrypted"}, stepsDoNot: "in the last minute"},
		{name: "the path is narrower than the device", from: "10.244.1.7", to: "10.244.2.9",
			change:  func(n *explain.Node, _ *fakeKernel) { n.Peers["node2"] = explain.Peer{State: "up", MTU: 1300} },
			verdict: explain.Verdict{Delivered: true, Text: "sent to node2 at 192.0.2.2:9338, encrypted"},
			step:    "packets of up to 1300 bytes: the path to the peer carries no larger ones (the device takes 1440)"},
		{name: "packets were dropped lately", from: "10.244.1.7", to: "10.244.2.9",
			change: func(n *explain.Node, _ *fakeKernel) {
				n.Drops, n.GuardDrops = map[string]uint64{"no_keys": 3, "replayed": 5}, map[string]uint64{"loopback": 1}
			},
			verdict: explain.Verdict{Delivered: true, Text: "sent to node2 at 192.0.2.2:9338, encrypted"},
			step:    "in the last minute, of all packets: 3 no_keys, 1 by the guard table loopback"},
		{name: "the peer is down, and a filter of this host is why", from: "10.244.1.7", to: "10.244.2.9",
			change: func(n *explain.Node, k *fakeKernel) {
				n.Peers["node2"] = explain.Peer{State: "unreachable", Down: true, Error: "node2 does not answer; open UDP port 9338"}
				k.drops["datagram output"] = hostcheck.Drop{Filter: "iptables chain OUTPUT", Why: "its policy is drop", Remedy: "let it pass"}
			},
			verdict: explain.Verdict{Text: "dropped here by another program's filter, iptables chain OUTPUT: its policy is drop", Remedy: "let it pass"}},
		{name: "the peer is down", from: "10.244.1.7", to: "10.244.2.9",
			change: func(n *explain.Node, _ *fakeKernel) {
				n.Peers["node2"] = explain.Peer{State: "unreachable", Down: true, Error: "node2 does not answer; open UDP port 9338"}
			},
			verdict: explain.Verdict{Text: "not delivered: peer node2 is unreachable: node2 does not answer; open UDP port 9338"}},
		{name: "the guard drops", from: "10.244.1.7", to: "10.244.2.9",
			change: func(_ *explain.Node, k *fakeKernel) {
				k.drops["prerouting"] = hostcheck.Drop{Filter: "the guard table", Counter: "spoofed_by_pod", Why: "a pod may send only from its addresses"}
			},
			step: "at prerouting, the guard table drops it and counts it as spoofed_by_pod: a pod may send only from its addresses",
			verdict: explain.Verdict{Text: "dropped here by the guard table, spoofed_by_pod: a pod's packet with another source than its own",
				Remedy: "nothing, if the pod forges packets; if it forwards packets, have it masquerade them; otherwise another program's routing rule or route diverts the pod's address: `weft explain` names it"}},
		{name: "another program's rule takes the way back", from: "10.244.1.7", to: "10.244.2.9",
			change: func(_ *explain.Node, k *fakeKernel) {
				way := k.ways["198.51.100.1"]
				way.Rule = "100: from all lookup 100"
				k.ways["10.244.1.7"] = way
				k.drops["prerouting"] = hostcheck.Drop{Filter: "the guard table", Counter: "spoofed_by_pod", Why: "a pod may send only from its addresses"}
			},
			step: "to 10.244.1.7 the kernel takes 0.0.0.0/0 dev eth0 table main src 192.0.2.1 (routing rule 100: from all lookup 100), and not " + veth,
			verdict: explain.Verdict{Text: "dropped here by the guard table, spoofed_by_pod: another program's route takes packets to 10.244.1.7 elsewhere: 0.0.0.0/0 dev eth0 table main src 192.0.2.1 (routing rule 100: from all lookup 100)",
				Remedy: "remove that route or rule (`weft routes`, `weft doctor`)"}},
		{name: "another program's route takes the packet", from: "10.244.1.7", to: "10.244.2.9",
			change: func(_ *explain.Node, k *fakeKernel) {
				k.ways["10.244.2.9"] = k.ways["198.51.100.1"]
				k.drops["postrouting"] = hostcheck.Drop{Filter: "the guard table", Counter: "bare_to_underlay", Why: "it would leave in clear"}
			},
			verdict: explain.Verdict{Text: "dropped here by the guard table, bare_to_underlay: another program's route takes packets to 10.244.2.9 elsewhere: 0.0.0.0/0 dev eth0 table main src 192.0.2.1",
				Remedy: "remove that route or rule (`weft routes`, `weft doctor`)"}},
		{name: "a filter can't be read", from: "10.244.1.7", to: "10.244.2.9",
			change:  func(n *explain.Node, _ *fakeKernel) { n.Unread = "nft list table: no such file" },
			verdict: explain.Verdict{Delivered: true, Text: "sent to node2 at 192.0.2.2:9338, encrypted"},
			step:    "not all can be read, so one that drops the packet may be missing here: nft list table: no such file"},
		{name: "a stranded pod", from: "10.244.9.7", to: "10.244.2.9",
			change: func(n *explain.Node, k *fakeKernel) {
				n.Pods[netip.MustParseAddr("10.244.9.7")] = explain.Pod{Name: "shop/old", Link: veth}
				k.ways["10.244.9.7"] = k.ways["10.244.1.7"]
			},
			verdict: explain.Verdict{Text: "dropped here by weftd, source_not_local: the source address is neither this node's nor its pods'",
				Remedy: "the node forwards packets of another network into the overlay: have it masquerade them"}},
		{name: "a pod whose veth is gone", from: "10.244.1.7", to: "10.244.2.9",
			change:  func(_ *explain.Node, k *fakeKernel) { delete(k.links, veth) },
			verdict: explain.Verdict{Text: "the pod's link " + veth + " does not exist", Remedy: "run `weft ipam check`"}},
		{name: "to the outside", from: "10.244.1.7", to: "198.51.100.1", step: "the guard table gives it the source 192.0.2.1",
			verdict: explain.Verdict{Delivered: true, Text: "leaves this node by eth0 with the source 192.0.2.1, outside the overlay"}},
		{name: "from a peer's pod", from: "10.244.2.9", to: "10.244.1.7", step: "the source belongs to node node2, and the destination to this node",
			verdict: explain.Verdict{Delivered: true, Text: "delivered to pod shop/web of this node by " + veth}},
		{name: "from a peer node to this node, past the overlay", from: "192.0.2.2", to: "192.0.2.1", step: "by eth0, not encapsulated",
			verdict: explain.Verdict{Delivered: true, Text: "delivered to this node, node1, itself"}},
		{name: "from the outside to a host of the outside", from: "198.51.100.1", to: "198.51.100.1",
			verdict: explain.Verdict{Delivered: true, Text: "forwarded by eth0; it is no packet of the overlay"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, k := node(t)
			if tt.change != nil {
				tt.change(&n, k)
			}
			answer := n.Explain(explain.Query{Source: netip.MustParseAddr(tt.from), Destination: netip.MustParseAddr(tt.to), Protocol: "tcp", Port: 80})
			if diff := cmp.Diff(tt.verdict, answer.Verdict); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			var steps []string
			for _, s := range answer.Steps {
				steps = append(steps, s.Text)
			}
			all := strings.Join(steps, "\n")
			if !strings.Contains(all+"\n", tt.step+"\n") || tt.stepsDoNot != "" && strings.Contains(all, tt.stepsDoNot) {
				t.Errorf("the steps are\n%s", all)
			}
		})
	}
}

// A packet meets the hooks in the kernel's order, and weftd's datagram comes after it.
func TestHooksAreAskedInOrder(t *testing.T) {
	n, k := node(t)
	n.Explain(explain.Query{Source: netip.MustParseAddr("10.244.1.7"), Destination: netip.MustParseAddr("10.244.2.9"), Protocol: "tcp", Port: 80})
	want := []string{
		"prerouting " + veth + "> 10.244.1.7", "forward " + veth + ">weft0 10.244.1.7", "postrouting " + veth + ">weft0 10.244.1.7",
		"datagram output >eth0 192.0.2.1", "datagram postrouting >eth0 192.0.2.1",
	}
	if diff := cmp.Diff(want, k.asked); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	k.asked = nil
	n.Explain(explain.Query{Source: netip.MustParseAddr("10.244.2.9"), Destination: netip.MustParseAddr("10.244.1.7"), Protocol: "tcp", Port: 80})
	want = []string{
		"datagram prerouting eth0> 192.0.2.2", "datagram input eth0> 192.0.2.2",
		"prerouting weft0> 10.244.2.9", "forward weft0>" + veth + " 10.244.2.9", "postrouting weft0>" + veth + " 10.244.2.9",
	}
	if diff := cmp.Diff(want, k.asked); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
