package main_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/internal/testnet"
)

// hostPort of node1 leads to a pod of node1, nodePort to one of node2.
const hostPort, nodePort = "8088", "8089"

// profile is what other programs make of a host.
type profile struct {
	name string

	// Both run on node1. The variable N4 is the node's address, N6 its IPv6 address.
	makes, undoes string

	// names is what `weft status` says in its first lines where packets are dropped; empty
	// where all must pass.
	names string

	// on is 1 for node1, 2 for node2.
	on int

	// nodePort says that node1 leads nodePort to a pod of node2, over IPv4.
	nodePort bool
}

// firewalld's tables as of version 2, without zones that don't matter here. %s accepts pods.
const firewalld = `nft -f - <<'X'
table inet firewalld {
	chain mangle_PREROUTING {
		type filter hook prerouting priority mangle + 10; policy accept;
		icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
		meta nfproto ipv6 fib saddr . mark . iif oif missing drop
	}
	chain filter_INPUT {
		type filter hook input priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		ct state invalid drop
		%[1]s
		jump filter_IN_public
		reject with icmpx admin-prohibited
	}
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		ct state invalid drop
		%[1]s
		reject with icmpx admin-prohibited
	}
	chain filter_IN_public {
		meta l4proto { icmp, ipv6-icmp } accept
		tcp dport 22 accept
		udp dport 9338 accept
	}
}
X`

// profiles are of programs that are common on Kubernetes nodes.
var profiles = []profile{
	{
		name: "Docker", names: "iptables chain FORWARD drops packets", on: 1,
		makes: `ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up
			sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1 2>/dev/null || true
			for i in iptables-nft ip6tables-nft; do
				$i -P FORWARD DROP; $i -N DOCKER; $i -N DOCKER-USER
				$i -A FORWARD -j DOCKER-USER; $i -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
				$i -A FORWARD -o docker0 -j DOCKER; $i -A FORWARD -i docker0 -j ACCEPT
			done`,
		undoes: `for i in iptables-nft ip6tables-nft; do $i -P FORWARD ACCEPT; $i -F; $i -X; done; ip link del docker0`,
	},
	{
		name: "Docker, and host.acceptForward", on: 2,
		makes:  `for i in iptables-nft ip6tables-nft; do $i -P FORWARD DROP; $i -N DOCKER-USER; $i -A FORWARD -j DOCKER-USER; done`,
		undoes: `for i in iptables-nft ip6tables-nft; do $i -P FORWARD ACCEPT; $i -F; $i -X; done`,
	},
	{
		name: "firewalld", names: "firewalld (chain inet firewalld filter_FORWARD) drops packets", on: 1,
		makes: fmt.Sprintf(firewalld, ""), undoes: "nft delete table inet firewalld",
	},
	{
		name: "firewalld with weft's zone", on: 1,
		makes:  fmt.Sprintf(firewalld, "ip saddr 10.244.0.0/16 accept\nip6 saddr fd00:244::/32 accept"),
		undoes: "nft delete table inet firewalld",
	},
	{
		name: "a chain of nftables, half a remedy", names: "nftables chain inet filter forward (hook forward) drops packets", on: 1,
		makes: `nft add table inet filter; nft 'add chain inet filter forward { type filter hook forward priority 0; policy drop; }'
			nft add rule inet filter forward oifname weft0 accept; nft add rule inet filter forward iifname weft0 accept`,
		undoes: "nft delete table inet filter",
	},
	{
		name: "Tailscale that accepts routes", on: 1,
		makes: `ip tuntap add tailscale0 mode tun; ip link set tailscale0 up
			for f in -4 -6; do
				ip $f rule add pref 5210 fwmark 0x80000/0xff0000 lookup main; ip $f rule add pref 5230 fwmark 0x80000/0xff0000 lookup default
				ip $f rule add pref 5250 fwmark 0x80000/0xff0000 unreachable; ip $f rule add pref 5270 lookup 52
			done
			ip route add 10.0.0.0/8 dev tailscale0 table 52; ip -6 route add fd00::/8 dev tailscale0 table 52; ip -6 route add throw fd00:77::/64 table 52
			iptables-nft -N ts-forward; iptables-nft -I FORWARD -j ts-forward
			iptables-nft -A ts-forward -i tailscale0 -j MARK --set-xmark 0x40000/0xff0000
			iptables-nft -A ts-forward -m mark --mark 0x40000/0xff0000 -j ACCEPT
			iptables-nft -A ts-forward -s 100.64.0.0/10 -o tailscale0 -j DROP`,
		undoes: `for f in -4 -6; do for p in 5210 5230 5250 5270; do ip $f rule del pref $p; done; ip $f route flush table 52; done
			ip link del tailscale0; iptables-nft -F; iptables-nft -X`,
	},
	{
		name: "a rule in front of weft's", names: "the routing rule of priority 100 sends packets to ", on: 1,
		makes:  `ip tuntap add vpn0 mode tun; ip link set vpn0 up; ip route add 10.244.0.0/16 dev vpn0 table 100; ip rule add pref 100 lookup 100`,
		undoes: `ip rule del pref 100; ip route flush table 100; ip link del vpn0`,
	},
	{
		name: "nm-cloud-setup", on: 1,
		makes: `ip route add default via 192.168.77.254 dev eth0 table 30400; ip route add 192.168.77.0/24 dev eth0 table 30400
			ip rule add from $N4 lookup 30400 pref 30400
			ip -6 route add default via fd00:77::fe dev eth0 table 30400; ip -6 route add fd00:77::/64 dev eth0 table 30400
			ip -6 rule add from $N6 lookup 30400 pref 30400`,
		undoes: `for f in -4 -6; do ip $f rule del pref 30400; ip $f route flush table 30400; done`,
	},
	{
		name: "IPVS", on: 1, nodePort: true, // translates without what the kernel calls DNAT, and masquerades
		makes: `nft -f - <<X
			table inet ipvs {
				chain in { type filter hook prerouting priority -250;
					iifname eth0 ip daddr $N4 tcp dport 8089 ip daddr set 10.244.2.2
				}
				chain back { type filter hook postrouting priority 101;
					oifname eth0 ip saddr 10.244.2.2 tcp sport 8089 ip saddr set $N4
				}
				chain source { type nat hook postrouting priority 100; oifname "weft0" tcp dport 8089 masquerade
				}
			}
X`,
		undoes: "nft delete table inet ipvs",
	},
}

// TestHostProfiles has a node among other programs: all ways of pods work, or `weft status`
// names in its first lines what is in the way. Where it is gone, all work again.
func TestHostProfiles(t *testing.T) {
	t.Parallel()
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true, Configure: func(weft map[string]any) {
		if weft["node"] == "node2" {
			weft["host"] = map[string]any{"acceptForward": true}
		}
	}})
	h := newHostWays(t, cluster)
	h.expect(t, "before all", profile{on: 1}, h.ways)
	for _, p := range profiles {
		t.Run(p.name, func(t *testing.T) {
			node := cluster.Nodes()[p.on-1]
			underlay4, _ := addressesOf(t, node, false)
			underlay6, _ := addressesOf(t, node, true)
			addresses := fmt.Sprintf("N4=%s N6=%s\n", underlay4, underlay6)
			run(t, node.Namespace, "sh", "-ec", addresses+p.makes)
			undone := false
			undo := func() {
				if !undone {
					undone = true
					run(t, node.Namespace, "sh", "-ec", addresses+p.undoes)
				}
			}
			defer undo()
			ways := h.ways
			if p.nodePort {
				ways = append(slices.Clone(ways), h.nodePort)
			}
			h.expect(t, "with "+p.name, p, ways)
			undo()
			h.expect(t, "after "+p.name, profile{on: p.on}, h.ways)
		})
	}
}

// hostWays are a node's and its pods' connections.
type hostWays struct {
	cluster  *testnet.Cluster
	ways     []way
	nodePort way
}

type way struct {
	name     string
	from, to *testnet.Namespace
	listen   netip.AddrPort // where to listens; without a port anywhere
	dial     netip.AddrPort // what from asks, the same without a port
}

func newHostWays(t *testing.T, cluster *testnet.Cluster) *hostWays {
	t.Helper()
	h := &hostWays{cluster: cluster}
	node1, node2 := cluster.Nodes()[0], cluster.Nodes()[1]
	far := addPod(t, node2, "far")
	pod, neighbour := addPod(t, node1, "pod"), addPod(t, node1, "neighbour")
	for family, v6 := range families {
		add := func(name string, from, to *testnet.Namespace, addr netip.Addr) {
			anyPort := netip.AddrPortFrom(addr, 0)
			h.ways = append(h.ways, way{family + ": " + name, from, to, anyPort, anyPort})
		}
		add("pod to pod of the node", neighbour.Namespace, pod.Namespace, addrOf(t, pod, v6))
		add("pod to pod of another node", pod.Namespace, far.Namespace, addrOf(t, far, v6))
		add("pod of another node to pod", far.Namespace, pod.Namespace, addrOf(t, pod, v6))
		for _, node := range cluster.Nodes() {
			underlay, overlay := addressesOf(t, node, v6)
			add("pod to "+node.Entry().Name, pod.Namespace, node.Namespace, underlay)
			add("pod to the overlay address of "+node.Entry().Name, pod.Namespace, node.Namespace, overlay)
			add(node.Entry().Name+" to pod", node.Namespace, pod.Namespace, addrOf(t, pod, v6))
			add(node.Entry().Name+" to the other pod", node.Namespace, far.Namespace, addrOf(t, far, v6))
		}
		underlay1, _ := addressesOf(t, node1, v6)
		if v6 { // only the address of its endpoint is reached through the overlay
			_, overlay1 := addressesOf(t, node1, v6)
			add("pod of another node to node1", far.Namespace, node1.Namespace, overlay1)
		} else {
			add("pod of another node to node1", far.Namespace, node1.Namespace, underlay1)
			h.nodePort = way{"outside to nodePort", cluster.Outside, far.Namespace,
				netip.MustParseAddrPort(net.JoinHostPort(addrOf(t, far, v6).String(), nodePort)),
				netip.MustParseAddrPort(net.JoinHostPort(underlay1.String(), nodePort))}
		}
		outside := testnet.OutsideAddr4
		if v6 {
			outside = testnet.OutsideAddr6
		}
		add("pod to the outside", pod.Namespace, cluster.Outside, outside)
		add("pod of another node to the outside", far.Namespace, cluster.Outside, outside)
		h.ways = append(h.ways, way{family + ": outside to hostPort", cluster.Outside, pod.Namespace,
			netip.MustParseAddrPort(net.JoinHostPort(addrOf(t, pod, v6).String(), hostPort)),
			netip.MustParseAddrPort(net.JoinHostPort(underlay1.String(), hostPort))})
	}
	// As portmap does it.
	run(t, node1.Namespace, "nft", fmt.Sprintf(`table inet hostport { chain prerouting {
		type nat hook prerouting priority dstnat
		fib daddr type local tcp dport %[1]s dnat ip to %[2]s
		fib daddr type local tcp dport %[1]s dnat ip6 to %[3]s
	}
	}`, hostPort, addrOf(t, pod, false), addrOf(t, pod, true)))
	return h
}

// expect waits until all ways work, or until `weft status` on the node says in its first
// lines what the profile names.
func (h *hostWays) expect(t *testing.T, when string, p profile, ways []way) {
	t.Helper()
	node, names := h.cluster.Nodes()[p.on-1], p.names
	eventually(t, "all ways to work "+when, func() error {
		shown := weft(t, node, "status").stdout
		head := strings.Join(strings.SplitN(shown, "\n", 8)[:min(7, strings.Count(shown, "\n"))], "\n")
		if names != "" {
			if strings.Contains(head, "WARNING") && strings.Contains(head, names) {
				return nil
			}
			return fmt.Errorf("weft status does not name %q, but says:\n%s", names, head)
		}
		if err := try(t.Context(), ways); err != nil {
			return fmt.Errorf("%w\nweft status says:\n%s", err, head)
		}
		if strings.Contains(head, "drops packets") || strings.Contains(head, "routing rule") {
			return fmt.Errorf("all ways work, but weft status says:\n%s", head)
		}
		return nil
	})
}

// try has a connection made in each way at once, and returns what fails.
func try(ctx context.Context, ways []way) error {
	errs := make([]error, len(ways))
	var all sync.WaitGroup
	for i, w := range ways {
		all.Go(func() { errs[i] = w.connect(ctx) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// connect makes a connection. The time is for one try among many.
func (w way) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	listener, err := w.to.Listen(ctx, "tcp", w.listen.String())
	if err != nil {
		return fmt.Errorf("%s: %w", w.name, err)
	}
	defer listener.Close()
	to := w.dial
	if to.Port() == 0 {
		to = netip.AddrPortFrom(to.Addr(), listener.Addr().(*net.TCPAddr).AddrPort().Port())
	}
	conn, err := w.from.Dial(ctx, "tcp", to.String())
	if err != nil {
		return fmt.Errorf("%s: %w", w.name, err)
	}
	return conn.Close()
}
