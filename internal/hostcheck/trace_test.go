package hostcheck

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"weft/internal/hostnet"
	"weft/internal/marks"
	"weft/internal/testnet"
)

// TestTheGuardIsFollowed has the kernel list the guard table that weftd makes, and follows it for
// packets whose fate docs/DESIGN.md promises.
func TestTheGuardIsFollowed(t *testing.T) {
	testnet.InNewNamespace(t)
	shell(t, "ip link add weft0 type veth peer name other")
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	n := hostnet.Network{
		TUN: "weft0", MTU: 1400, Addresses: []netip.Addr{addr("10.244.1.1")}, PodCIDRs: []netip.Prefix{prefix("10.244.1.0/24")},
		ClusterCIDRs: []netip.Prefix{prefix("10.244.0.0/16")}, PeerCIDRs: []netip.Prefix{prefix("10.244.2.0/24")},
		PeerAddresses: []netip.Addr{addr("192.0.2.2")}, Senders: []netip.Addr{addr("192.0.2.2")}, PeerEndpoints: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.2:9338")},
		Known: []netip.Addr{addr("192.0.2.1")}, Port: 9338, SourcePorts: []uint16{51104}, MarkMask: marks.DefaultMask, Trusted: []string{"vpn0"}, RandomPorts: true,
	}
	if err := hostnet.New(slog.New(slog.DiscardHandler)).Apply(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	filters, err := Host{TUN: "weft0", Port: 9338, ClusterCIDRs: n.ClusterCIDRs, PodCIDRs: n.PodCIDRs}.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	veth, weft0, eth0, vpn0 := Interface{"weft0123456789a", "veth", marks.PodLinkGroup}, Interface{Name: "weft0", Kind: "tun"}, Interface{Name: "eth0"}, Interface{Name: "vpn0"}
	pod, peersPod, outside, peer, node := addr("10.244.1.7"), addr("10.244.2.9"), addr("198.51.100.1"), addr("192.0.2.2"), addr("192.0.2.1")
	mask := marks.DefaultMask
	for _, tt := range []struct {
		name string
		hook string
		p    Packet
		want string // the counter
	}{
		{"a pod's packet", Prerouting, Packet{In: veth, Source: pod, Destination: peersPod, SourceRouted: true}, ""},
		{"a pod's packet with another source", Prerouting, Packet{In: veth, Source: outside, Destination: peersPod}, "spoofed_by_pod"},
		{"a pod's packet to a peer's pod", Forward, Packet{In: veth, Out: weft0, Source: pod, Destination: peersPod}, ""},
		{"a pod's packet to a peer's pod, as it leaves", Postrouting, Packet{In: veth, Out: weft0, Source: pod, Destination: peersPod}, ""},
		{"the same past the overlay", Postrouting, Packet{In: veth, Out: eth0, Source: pod, Destination: peersPod}, "bare_to_underlay"},
		{"a pod's packet to a peer node past the overlay", Postrouting, Packet{In: veth, Out: eth0, Source: node, Original: pod, Destination: peer}, "bare_to_underlay"},
		{"a pod's packet to the outside, untranslated", Postrouting, Packet{In: veth, Out: eth0, Source: pod, Destination: outside}, "bare_to_underlay"},
		{"a pod's packet to the outside", Postrouting, Packet{In: veth, Out: eth0, Source: node, Original: pod, Destination: outside}, ""},
		{"a pod's packet to weft's port", Forward, Packet{In: veth, Out: eth0, Source: pod, Destination: peer, Protocol: "udp", Port: 9338}, "tunnel_in_tunnel"},
		{"bare from the underlay to a pod", Prerouting, Packet{In: eth0, Source: outside, Destination: pod}, "bare_to_pod"},
		{"from a trusted interface to a pod", Prerouting, Packet{In: vpn0, Source: outside, Destination: pod}, ""},
		{"a pod's source from the underlay", Prerouting, Packet{In: eth0, Source: peersPod, Destination: pod}, "foreign_source"},
		{"a peer's datagram", Prerouting, Packet{In: eth0, Source: peer, Destination: node, Protocol: "udp", Port: 9338, DestLocal: true, Untracked: true}, ""},
		{"a peer's datagram to the socket", Input, Packet{In: eth0, Source: peer, Destination: node, Protocol: "udp", Port: 9338, DestLocal: true, Untracked: true}, ""},
		{"out of the overlay to a pod", Forward, Packet{In: weft0, Out: veth, Source: peersPod, Destination: pod, Mark: mask.FromOverlay()}, ""},
		{"out of the overlay to elsewhere", Forward, Packet{In: weft0, Out: eth0, Source: peersPod, Destination: outside, Mark: mask.FromOverlay()}, "overlay_transit"},
		{"weftd's datagram", Output, Packet{Out: eth0, Source: node, Destination: peer, Protocol: "udp", Port: 9338, Mark: mask.OwnDatagram(), FromNode: true, SourceLocal: true}, ""},
		{"another program's datagram", Output, Packet{Out: eth0, Source: node, Destination: peer, Protocol: "udp", Port: 9338, FromNode: true, SourceLocal: true}, "local_sender"},
		{"a program of the node with a pod's source", Output, Packet{Out: weft0, Source: pod, Destination: peersPod, FromNode: true}, "spoofed_by_host"},
		{"a program of the node", Output, Packet{Out: weft0, Source: addr("10.244.1.1"), Destination: peersPod, FromNode: true, SourceLocal: true}, ""},
	} {
		if tt.p.Protocol == "" {
			tt.p.Protocol, tt.p.Port = "tcp", 80
		}
		got, drops := filters.Judge(tt.hook, tt.p)
		if got.Counter != tt.want || drops != (tt.want != "") || drops && (got.Filter != "the guard table" || got.Why == "") {
			t.Errorf("%s: %+v, want the counter %q", tt.name, got, tt.want)
		}
	}
	leaving := Packet{In: veth, Out: eth0, Source: pod, Destination: outside, Protocol: "tcp"}
	inside := Packet{In: veth, Out: weft0, Source: pod, Destination: peersPod, Protocol: "tcp"}
	if !filters.Masquerades(leaving) || filters.Masquerades(inside) {
		t.Error("what pods send is masqueraded outside the cluster, and only there")
	}
	for _, program := range []string{"nftables chain ip f F (hook forward)", "nftables chain ip f P (hook postrouting)"} {
		hook := map[bool]string{true: Forward, false: Postrouting}[strings.Contains(program, "forward")]
		name := strings.Fields(program)[4]
		shell(t, "nft add table ip f; nft 'add chain ip f "+name+" { type filter hook "+hook+" priority 0; }'; nft add rule ip f "+name+" tcp dport 80 counter drop")
		filters, err := Host{TUN: "weft0", Port: 9338}.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		inside.Port = 80
		if got, drops := filters.Judge(hook, inside); !drops || got.Filter != program || got.Counter != "" || !strings.HasPrefix(got.Why, "rule with handle ") || got.Remedy == "" {
			t.Errorf("%+v, want %s", got, program)
		}
		inside.Port = 81
		if got, drops := filters.Judge(hook, inside); drops {
			t.Errorf("another port: %+v", got)
		}
	}
}
