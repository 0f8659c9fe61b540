package hostnet

import (
	"fmt"
	"strconv"
	"strings"

	"sigs.k8s.io/knftables"

	"weft/internal/marks"
)

// chain is a chain of the table: a base chain if it has a hook.
type chain struct {
	name     string
	kind     knftables.BaseChainType
	hook     knftables.BaseChainHook
	priority knftables.BaseChainPriority
}

// Base chains have the names of their hooks. prerouting and output come before
// connection tracking and before any DNAT (so do others' raw chains, of which ours
// is the first); input and forward come before other programs' filters,
// where the destination is the final one; postrouting comes after srcnat, where the source
// is too.
var chains = []chain{
	{name: "from_pods"},
	{name: "icmp6_from_pods"},
	{name: "from_overlay"},
	{name: "from_underlay"},
	{name: "datagrams"},
	{name: "to_port"},
	{name: "from_bridge"},
	{name: "own_datagrams"},
	{name: "forward_pods"},
	{name: "forward_overlay"},
	{name: "translated"},
	{name: "to_peer"},
	{name: "too_big4"},
	{name: "too_big6"},
	{"prerouting", knftables.FilterType, knftables.PreroutingHook, knftables.RawPriority + "-10"},
	{"input", knftables.FilterType, knftables.InputHook, knftables.FilterPriority + "-10"},
	{"forward", knftables.FilterType, knftables.ForwardHook, knftables.FilterPriority + "-10"},
	{"output", knftables.FilterType, knftables.OutputHook, knftables.RawPriority + "-10"},
	{"srcnat", knftables.NATType, knftables.PostroutingHook, knftables.SNATPriority},
	{"postrouting", knftables.FilterType, knftables.PostroutingHook, knftables.SNATPriority + "+10"},
}

func (c chain) object() *knftables.Chain {
	object := &knftables.Chain{Name: c.name}
	if c.hook != "" {
		object.Type, object.Hook, object.Priority = &c.kind, &c.hook, &c.priority
	}
	return object
}

// guardRule is a rule of the table, in the syntax of nft(8), and why it is there.
type guardRule struct{ chain, rule, why string }

// rules returns the table's rules, chain by chain in the order in which a packet
// meets them.
func rules(n Network) []guardRule {
	// iifname and oifname rather than iif and oif: the table outlives the device.
	fromTUN := fmt.Sprintf("iifname %q", n.TUN)
	toTUN := fmt.Sprintf("oifname %q", n.TUN)
	fromPods := fmt.Sprintf("iifgroup %d", marks.PodLinkGroup)
	toPods := fmt.Sprintf("oifgroup %d", marks.PodLinkGroup)
	toPort := fmt.Sprintf("udp dport %d", n.Port)
	low, high := n.masqueradePorts()
	isOwn := hasMark(n.MarkMask, n.MarkMask.OwnDatagram())
	isBridged := hasMark(n.MarkMask, n.MarkMask.Bridged())
	// What this node merely forwards has no socket, or one of another namespace, where the
	// expression doesn't match (nft_meta_get_eval_skugid in the kernel's net/netfilter/nft_meta.c).
	// So the mark alone is no passport.
	hasSocket := "meta skuid 0-4294967294"
	// At postrouting the kernel names no iif for a frame that a bridge forwards, but for
	// each packet that it routes. A program of the node that can set the mark gains nothing:
	// it can also send frames past this table (AF_PACKET).
	leavesBridge := isBridged + ` iif 0 meta oifkind "bridge"`
	toEndpoint4 := fmt.Sprintf("ip daddr . udp dport @%s4", setEndpoints)
	toEndpoint6 := fmt.Sprintf("ip6 daddr . udp dport @%s6", setEndpoints)
	// Of a header that an ICMP message quotes, nft knows no fields: @th,BIT,LENGTH counts
	// from the message's first bit, and can't be looked up in a set that has a type.
	quoted := func(offset, length int, is string) string { return fmt.Sprintf("@th,%d,%d %s ", offset, length, is) }
	var ports []string
	for _, port := range n.ports() {
		ports = append(ports, strconv.Itoa(int(port)))
	}
	quotesPorts := func(udp int) string { return quoted(udp, 16, "{ "+strings.Join(ports, ", ")+" }") }
	quotesPort := func(udp int) string { return quoted(udp+16, 16, strconv.Itoa(int(n.Port))) }

	masquerade, udpMasquerade := "masquerade", fmt.Sprintf("meta l4proto 17 masquerade to :%d-%d", low, high)
	if n.RandomPorts {
		masquerade, udpMasquerade = masquerade+" fully-random", udpMasquerade+" fully-random"
	}
	notTrusted, trusted := "", []guardRule(nil)
	if len(n.Trusted) > 0 {
		names := fmt.Sprintf("{ %q }", n.Trusted)
		names = strings.NewReplacer("[", "", "]", "", `" "`, `", "`).Replace(names)
		notTrusted = " iifname != " + names
		trusted = []guardRule{{"postrouting", "oifname " + names + " accept", "answers of pods to trusted interfaces"}}
	}

	const flood = "limit rate over 1000/second burst 1000 packets"

	// In each chain the rules come first that most packets end at, and in each rule
	// the condition that most packets fail: every packet pays for what it is asked.
	// For frames that a bridge merely forwards, see bridge.go.
	return append([]guardRule{
		{"prerouting", fromPods + " goto from_pods", "local pods"},
		{"prerouting", fromTUN + " goto from_overlay", "peers' pods"},
		{"prerouting", `iif "lo" accept`, "this node to itself"},
		{"prerouting", "goto from_underlay", "all other sources"},

		{"from_pods", "meta l4proto 58 jump icmp6_from_pods", "the packets of neighbour discovery have sources of their own"},
		{"icmp6_from_pods", "icmpv6 type { nd-router-advert, nd-redirect }" + drop(dropRouterAdvert), "no pod is a router"},
		{"icmp6_from_pods", "ip6 saddr { ::, fe80::/10 } accept", "neighbour discovery, which never leaves the link"},
		{"from_pods", "ip daddr 127.0.0.0/8" + drop(dropLoopback), "portmap has the kernel route loopback addresses"},
		{"from_pods", fmt.Sprintf("iif . ip saddr @%s4 accept", setRouted), "looked up within the last second; a lookup for each packet takes a third of this table's time"},
		{"from_pods", fmt.Sprintf("iif . ip6 saddr @%s6 accept", setRouted), "as above"},
		{"from_pods", "fib saddr . iif oif missing" + drop(dropSpoofed), "a pod may send only from addresses that are routed to its veth"},
		{"from_pods", fmt.Sprintf("ip saddr @pods4 add @%s4 { iif . ip saddr }", setRouted), "of link-local addresses a pod has as many as it likes"},
		{"from_pods", fmt.Sprintf("ip6 saddr @pods6 add @%s6 { iif . ip6 saddr }", setRouted), "of link-local addresses a pod has as many as it likes"},

		// That the source is the peer's, weftd has checked.
		{"from_overlay", "ip daddr 127.0.0.0/8" + drop(dropLoopback), "kube-proxy and portmap have the kernel route loopback addresses"},
		{"from_overlay", "ip saddr 127.0.0.0/8" + drop(dropLoopback), "kube-proxy and portmap have the kernel route loopback addresses"},
		{"from_overlay", fmt.Sprintf("meta mark set meta mark | %#x", n.MarkMask.FromOverlay()), "answers return by the overlay, for reverse path checks too"},

		{"from_underlay", toPort + " fib daddr type local goto datagrams", "datagrams between nodes"},
		{"from_underlay", "ip saddr 127.0.0.0/8" + drop(dropLoopback), "kube-proxy and portmap have the kernel route loopback addresses"},
		{"from_underlay", "ip daddr 127.0.0.0/8" + drop(dropLoopback), "kube-proxy and portmap have the kernel route loopback addresses"},
		{"from_underlay", isBridged + ` meta iifkind "bridge" accept`, "a bridge's frame to another host; if it is routed after all, from_bridge decides"},
		{"from_underlay", "ip saddr @cluster4" + drop(dropForeignSource), "packets of other nodes' pods arrive encapsulated"},
		{"from_underlay", "ip6 saddr @cluster6" + drop(dropForeignSource), "packets of other nodes' pods arrive encapsulated"},
		{"from_underlay", "ip daddr @cluster4" + notTrusted + drop(dropBare), "other hosts reach pods only by hostPort and Service, not yet translated here"},
		{"from_underlay", "ip6 daddr @cluster6" + notTrusted + drop(dropBare), "other hosts reach pods only by hostPort and Service, not yet translated here"},

		{"datagrams", fmt.Sprintf("ip saddr . udp sport @%s4 accept", setTranslated), "an answer to another program's translation"},
		{"datagrams", fmt.Sprintf("ip6 saddr . udp sport @%s6 accept", setTranslated), "an answer to another program's translation"},
		{"datagrams", "ip saddr @senders4 notrack accept", "a full connection table must not stop the overlay"},
		{"datagrams", "ip6 saddr @senders6 notrack accept", "a full connection table must not stop the overlay"},
		{"datagrams", flood + drop(dropNonPeer), "a flood must not delay peers' datagrams; joined datagrams count as one"},
		{"datagrams", "notrack accept", "weftd recognizes peers that roam among other senders"},

		{"input", toPort + " goto to_port", "weft's port"},
		{"to_port", fromPods + drop(dropTunnelInTunnel), "pods never send datagrams of weft's; these are forged"},
		{"to_port", fromTUN + drop(dropTunnelInTunnel), "nodes never send datagrams of weft's through the overlay"},
		{"to_port", `iif "lo"` + drop(dropLocalSender), "IPv6 lets every user send from a peer's address (IPV6_FREEBIND)"},
		{"input", fromBridge + " jump from_bridge", "a broadcast, or a frame that another program translated to this node"},

		// An attacker that knows a node's address can forge these, and the kernel believes them for
		// ten minutes. See ipv4_sk_update_pmtu and icmpv6_notify in the kernel's net/ for how
		// it finds the ports that an ICMP message quotes.
		{"input", "icmp type destination-unreachable icmp code 4 goto too_big4", "weft finds the path's MTU itself"},
		{"input", "icmpv6 type packet-too-big goto too_big6", "weft finds the path's MTU itself"},
		{"too_big4", quoted(ip4Protocol, 8, "!= 17") + "accept", "not about UDP"},
		{"too_big4", quoted(ip4HeaderLength, 4, "!= 5") + drop(dropPathMTU), "the ports are behind IP options, where nftables can't compare them"},
		{"too_big4", quotesPorts(ip4Payload) + drop(dropPathMTU), "about a datagram of this node's"},
		{"too_big4", quotesPort(ip4Payload) + drop(dropPathMTU), "about a datagram to a peer"},
		{"too_big6", quoted(ip6NextHeader, 8, "{ 0, 43, 51, 60 }") + drop(dropPathMTU), "the ports are behind extension headers, where nftables can't compare them"},
		{"too_big6", quoted(ip6NextHeader, 8, "17") + quotesPorts(ip6Payload) + drop(dropPathMTU), "about a datagram of this node's"},
		{"too_big6", quoted(ip6NextHeader, 8, "17") + quotesPort(ip6Payload) + drop(dropPathMTU), "about a datagram to a peer"},
		{"too_big6", quoted(ip6NextHeader, 8, "!= 44") + "accept", "not about UDP"},
		{"too_big6", quoted(ip6Payload, 8, "{ 0, 43, 44, 51, 60 }") + drop(dropPathMTU), "as above"},
		{"too_big6", quoted(ip6Payload, 8, "17") + quotesPorts(ip6Payload+fragmentHeader) + drop(dropPathMTU), "as above"},
		{"too_big6", quoted(ip6Payload, 8, "17") + quotesPort(ip6Payload+fragmentHeader) + drop(dropPathMTU), "as above"},

		{"forward", fromPods + " goto forward_pods", "local pods"},
		{"forward", fromTUN + " goto forward_overlay", "peers' pods"},
		{"forward", fromBridge + " jump from_bridge", "a bridge's frames, also those that another program's translation had routed"},

		{"forward_pods", "ct direction reply accept", "answers on connections that were accepted, whichever program translates them"},
		{"forward_pods", toEndpoint4 + drop(dropTunnelInTunnel), "pods never send datagrams of weft's; these are forged"},
		{"forward_pods", toEndpoint6 + drop(dropTunnelInTunnel), "pods never send datagrams of weft's; these are forged"},

		{"forward_overlay", "ct direction reply accept", "answers on connections that were accepted, whichever program translates them"},
		{"forward_overlay", toPods + " accept", "peers' pods to local pods"},
		{"forward_overlay", toEndpoint4 + drop(dropTunnelInTunnel), "to a node, through a Service"},
		{"forward_overlay", toEndpoint6 + drop(dropTunnelInTunnel), "to a node, through a Service"},
		{"forward_overlay", "ct status dnat accept", "Services and hostPorts of this node"},
		{"forward_overlay", strings.TrimSpace(drop(dropTransit)), "peers must not reach the underlay, or each other, through this node"},

		// What from_underlay says, of the addresses that the packet had on the wire.
		{"from_bridge", isBridged + ` meta iifkind "bridge" meta oifkind "bridge" accept`, "the bridge forwards it, not the overlay"},
		{"from_bridge", "ip saddr @cluster4" + drop(dropForeignSource), "as in from_underlay"},
		{"from_bridge", "ip6 saddr @cluster6" + drop(dropForeignSource), "as in from_underlay"},
		{"from_bridge", "ct direction original ct original ip daddr @cluster4" + notTrusted + drop(dropBare), "as in from_underlay, before any DNAT"},
		{"from_bridge", "ct direction original ct original ip6 daddr @cluster6" + notTrusted + drop(dropBare), "as in from_underlay, before any DNAT"},
		{"from_bridge", "ct direction reply ct reply ip daddr @cluster4" + notTrusted + drop(dropBare), "as in from_underlay, before an answer is translated back"},
		{"from_bridge", "ct direction reply ct reply ip6 daddr @cluster6" + notTrusted + drop(dropBare), "as in from_underlay, before an answer is translated back"},
		{"from_bridge", "ct state { invalid, untracked } ip daddr @cluster4" + notTrusted + drop(dropBare), "as in from_underlay, never translated"},
		{"from_bridge", "ct state { invalid, untracked } ip6 daddr @cluster6" + notTrusted + drop(dropBare), "as in from_underlay, never translated"},

		{"output", isOwn + " goto own_datagrams", "weftd's"},
		{"own_datagrams", toTUN + drop(dropTunnelInTunnel), "encapsulated datagrams must not enter the overlay again"},
		{"own_datagrams", "ip daddr @cluster4" + drop(dropLeak), "even if a route leads there"},
		{"own_datagrams", "ip6 daddr @cluster6" + drop(dropLeak), "even if a route leads there"},
		{"own_datagrams", "notrack accept", "a full connection table must not stop the overlay"},
		{"output", toEndpoint4 + drop(dropLocalSender), "a datagram from this node that weftd did not send is forged"},
		{"output", toEndpoint6 + drop(dropLocalSender), "a datagram from this node that weftd did not send is forged"},
		// Only what has a socket is a program's. The kernel itself refuses connections in a
		// pod's name ("reject with tcp reset").
		{"output", "ip saddr @cluster4 " + hasSocket + " fib saddr type != local" + drop(dropLocalSpoof), "IP_TRANSPARENT lets privileged users send from pods' addresses"},
		{"output", "ip6 saddr @cluster6 " + hasSocket + " fib saddr type != local" + drop(dropLocalSpoof), "IPV6_FREEBIND lets every user send from pods' addresses"},
		// No packet is lost by these, so they are not counted. For IPv4 there is a sysctl,
		// which holds only where conf.all agrees (send_redirects in ip-sysctl.rst).
		{"output", toPods + " icmp type redirect drop", "a pod that reaches itself by its hostPort has no better route"},
		{"output", toPods + " icmpv6 type nd-redirect drop", "a pod that reaches itself by its hostPort has no better route"},

		{"srcnat", toTUN + " ip saddr != @cluster4 ip saddr != @known4 fib saddr type local masquerade", "peers would drop this node's other addresses"},
		{"srcnat", toTUN + " ip6 saddr != @cluster6 ip6 saddr != @known6 fib saddr type local masquerade", "peers would drop this node's other addresses"},
		{"srcnat", toTUN + " return", "pods and nodes see each other's real addresses"},
		{"srcnat", toPods + " return", "pods and nodes see each other's real addresses"},
		{"srcnat", leavesBridge + " return", "not the overlay's"},
		{"srcnat", "ip saddr @pods4 ip daddr != @cluster4 " + udpMasquerade, "not from weft's ports: answers there would be taken for datagrams"},
		{"srcnat", "ip6 saddr @pods6 ip6 daddr != @cluster6 " + udpMasquerade, "not from weft's ports: answers there would be taken for datagrams"},
		{"srcnat", "ip saddr @pods4 ip daddr != @cluster4 " + masquerade, "routers outside have no route back to a pod"},
		{"srcnat", "ip6 saddr @pods6 ip6 daddr != @cluster6 " + masquerade, "routers outside have no route back to a pod"},

		{"postrouting", "ct status dnat meta l4proto 17 jump translated", "a Service may lead anywhere"},
		{"translated", toEndpoint4 + drop(dropLocalSender), "a datagram from this node that weftd did not send is forged"},
		{"translated", toEndpoint6 + drop(dropLocalSender), "a datagram from this node that weftd did not send is forged"},
		{"postrouting", fromPods + " " + toTUN + " accept", "the correct route to peers' pods"},
		{"postrouting", fmt.Sprintf("%s ct state untracked oifname != %q %s accept", isOwn, n.TUN, hasSocket), "weftd's datagrams, judged in own_datagrams"},
		{"postrouting", toPods + " accept", "the correct route to pods"},
		{"postrouting", isOwn + " " + toTUN + drop(dropTunnelInTunnel), "encapsulated datagrams must not enter the overlay again"},
		{"postrouting", fmt.Sprintf(`oifname { "lo", %q } accept`, n.TUN), "the correct route to pods"},
		{"postrouting", leavesBridge + " accept", "not the overlay's"},
		{"postrouting", "ip daddr @cluster4" + drop(dropLeak), "even if a route leads there, or the TUN device is gone"},
		{"postrouting", "ip6 daddr @cluster6" + drop(dropLeak), "even if a route leads there, or the TUN device is gone"},
		{"postrouting", "ip daddr @peer_nodes4 jump to_peer", "pods reach nodes through the overlay only"},
		{"postrouting", "ip6 daddr @peer_nodes6 jump to_peer", "pods reach nodes through the overlay only"},
		// What connection tracking calls related may be an ICMP error of the node's own that belongs
		// to a pod's connection, or one that a pod has forged and that belongs to another's.
		{"to_peer", fromPods + drop(dropLeak), "a pod's, which may have been translated already"},
		{"to_peer", "ip saddr @pods4" + drop(dropLeak), "a pod's, by a way that has lost its interface"},
		{"to_peer", "ip6 saddr @pods6" + drop(dropLeak), "a pod's, by a way that has lost its interface"},
		{"to_peer", "ct state new,established ct direction original ct original ip saddr @pods4" + drop(dropLeak), "the node's, under its overlay address, before it was translated"},
		{"to_peer", "ct state new,established ct direction original ct original ip6 saddr @pods6" + drop(dropLeak), "the node's, under its overlay address, before it was translated"},
	}, append(trusted, []guardRule{
		{"postrouting", "ct direction reply ct status snat accept", "of a connection that this node translated; another program translates it back"},
		{"postrouting", "ip saddr @cluster4" + drop(dropLeak), "no packet of a pod leaves untranslated, whatever its connection's state"},
		{"postrouting", "ip6 saddr @cluster6" + drop(dropLeak), "no packet of a pod leaves untranslated, whatever its connection's state"},
		{"postrouting", fmt.Sprintf("udp sport %d ct status snat update @%s4 { ip daddr . udp dport }", n.Port, setTranslated), "kube-proxy's translation may take any port"},
		{"postrouting", fmt.Sprintf("udp sport %d ct status snat update @%s6 { ip6 daddr . udp dport }", n.Port, setTranslated), "kube-proxy's translation may take any port"},
	}...)...)
}

// Where an ICMP error (RFC 792, RFC 4443) has the header of the packet that it is about,
// in bits: behind its own header of 64.
const (
	ip4HeaderLength = 64 + 4
	ip4Protocol     = 64 + 72
	ip4Payload      = 64 + 160 // of a header without options
	ip6NextHeader   = 64 + 48
	ip6Payload      = 64 + 320
	fragmentHeader  = 64 // its length
)

// fromBridge holds for what comes out of a bridge, or out of a device that can lie upon one
// and have another MAC address or VLAN: on the way up the kernel doesn't call prerouting again.
const fromBridge = `meta iifkind { "bridge", "vlan", "macvlan", "ipvlan", "openvswitch" }`

// hasMark holds for packets whose mark has this value in the mask's bits.
func hasMark(mask marks.Mask, value uint32) string {
	return fmt.Sprintf("meta mark & %#x == %#x", uint32(mask), value)
}

func drop(counter string) string { return fmt.Sprintf(" counter name %q drop", counter) }
