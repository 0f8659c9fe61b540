package hostnet

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/knftables"

	"weft/internal/marks"
)

// The named counters of the drop rules: why a packet was dropped.
const (
	dropForeignSource  = "foreign_source"   // a pod's address as source, from the underlay
	dropBare           = "bare_to_pod"      // not encapsulated, from the underlay to a pod's address
	dropSpoofed        = "spoofed_by_pod"   // a pod's packet with a source that isn't the pod's
	dropRouterAdvert   = "router_advert"    // a pod posing as a router
	dropTunnelInTunnel = "tunnel_in_tunnel" // to weft's port, by a pod or through the overlay
	dropStranger       = "stranger_flood"   // to weft's port, by no peer, and more than enough
	dropTransit        = "overlay_transit"  // out of the overlay, to neither a pod nor this node
	dropLeak           = "bare_to_underlay" // to a pod or by a pod to a peer, past the overlay
	dropPathMTU        = "path_mtu_report"  // "too big" by ICMP, about weft's own datagrams
	dropLoopback       = "loopback"         // a loopback address, from elsewhere than this node
	dropLocalSender    = "local_sender"     // to weft's port of a node, by this node but not by weftd
	dropLocalSpoof     = "spoofed_by_host"  // a pod's address as source, by a program of this node
)

var dropCounters = []string{
	dropForeignSource, dropBare, dropSpoofed, dropRouterAdvert, dropTunnelInTunnel, dropStranger, dropTransit, dropLeak, dropPathMTU, dropLoopback, dropLocalSender, dropLocalSpoof,
}

// The sets of the table; each is followed by 4 or 6.
const (
	setCluster = "cluster"    // ClusterCIDRs
	setPods    = "pods"       // PodCIDRs
	setPeers   = "peer_nodes" // PeerAddresses
	setSenders = "senders"    // Senders
	setKnown   = "known"      // Known

	setEndpoints = "endpoints" // PeerEndpoints

	// Of both families: Port and SourcePorts.
	setPorts = "ports"

	// Where answers to Port are to come from, because another program's translation took
	// it as source port. The packets themselves fill these.
	setTranslated = "translated"
)

// translatedFor outlasts what connection tracking keeps of a UDP flow
// (nf_conntrack_udp_timeout_stream, 120 s).
const translatedFor = 180 * time.Second

// ruleset returns the transaction that replaces the table by what n needs, its
// counters starting at counts.
func ruleset(tx *knftables.Transaction, n Network, counts map[string]*knftables.Counter) *knftables.Transaction {
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	tx.Add(&knftables.Table{Comment: new(identity(n).Comment)})
	for _, name := range dropCounters {
		counter := &knftables.Counter{Name: name}
		if held, ok := counts[name]; ok {
			counter.Packets, counter.Bytes = held.Packets, held.Bytes
		}
		tx.Add(counter)
	}
	addPrefixSets(tx, setCluster, n.ClusterCIDRs)
	addPrefixSets(tx, setPods, n.PodCIDRs)
	addAddressSets(tx, setPeers, n.PeerAddresses)
	addAddressSets(tx, setSenders, n.Senders)
	addAddressSets(tx, setKnown, n.Known)
	addEndpointSets(tx, n.PeerEndpoints)
	tx.Add(&knftables.Set{Name: setPorts, Type: "inet_service"})
	for _, port := range n.ports() {
		tx.Add(&knftables.Element{Set: setPorts, Key: []string{strconv.Itoa(int(port))}})
	}
	for _, family := range []struct{ digit, kind string }{{"4", "ipv4_addr"}, {"6", "ipv6_addr"}} {
		tx.Add(&knftables.Set{
			Name: setTranslated + family.digit, Type: family.kind + " . inet_service",
			Flags:   []knftables.SetFlag{knftables.DynamicFlag, knftables.TimeoutFlag},
			Timeout: new(translatedFor),
		})
	}
	for _, c := range chains {
		tx.Add(c.object())
	}
	for _, r := range rules(n) {
		tx.Add(&knftables.Rule{Chain: r.chain, Rule: r.rule, Comment: new(r.why)})
	}
	return tx
}

// addPrefixSets adds sets of intervals, which do not overlap. They are not merged: with
// auto-merge, nft 1.0.6 fails where one begins behind the end of another.
func addPrefixSets(tx *knftables.Transaction, name string, prefixes []netip.Prefix) {
	for _, family := range []struct{ digit, kind string }{{"4", "ipv4_addr"}, {"6", "ipv6_addr"}} {
		tx.Add(&knftables.Set{Name: name + family.digit, Type: family.kind, Flags: []knftables.SetFlag{knftables.IntervalFlag}})
	}
	for _, p := range prefixes {
		tx.Add(&knftables.Element{Set: name + digit(p.Addr()), Key: []string{p.String()}})
	}
}

func addAddressSets(tx *knftables.Transaction, name string, addrs []netip.Addr) {
	tx.Add(&knftables.Set{Name: name + "4", Type: "ipv4_addr"})
	tx.Add(&knftables.Set{Name: name + "6", Type: "ipv6_addr"})
	for _, a := range addrs {
		tx.Add(&knftables.Element{Set: name + digit(a), Key: []string{a.String()}})
	}
}

func addEndpointSets(tx *knftables.Transaction, endpoints []netip.AddrPort) {
	tx.Add(&knftables.Set{Name: setEndpoints + "4", Type: "ipv4_addr . inet_service"})
	tx.Add(&knftables.Set{Name: setEndpoints + "6", Type: "ipv6_addr . inet_service"})
	for _, e := range endpoints {
		tx.Add(endpointElement(e))
	}
}

func endpointElement(e netip.AddrPort) *knftables.Element {
	return &knftables.Element{Set: setEndpoints + digit(e.Addr()), Key: []string{e.Addr().String(), strconv.Itoa(int(e.Port()))}}
}

// changeEndpoints makes the sets that hold some endpoints hold others.
func changeEndpoints(tx *knftables.Transaction, have, want []netip.AddrPort) {
	stale, missing := apart(have, want, netip.AddrPort.Compare)
	for _, e := range missing {
		tx.Add(endpointElement(e))
	}
	for _, e := range stale {
		tx.Delete(endpointElement(e))
	}
}

// changeAddresses makes sets that hold some addresses hold others.
func changeAddresses(tx *knftables.Transaction, name string, have, want []netip.Addr) {
	stale, missing := apart(have, want, netip.Addr.Compare)
	for _, a := range missing {
		tx.Add(&knftables.Element{Set: name + digit(a), Key: []string{a.String()}})
	}
	for _, a := range stale {
		tx.Delete(&knftables.Element{Set: name + digit(a), Key: []string{a.String()}})
	}
}

// sameRules says whether two rulesets differ in peers at most.
func sameRules(a, b Network) bool {
	return a.TUN == b.TUN && a.Port == b.Port && a.MarkMask == b.MarkMask && a.RandomPorts == b.RandomPorts &&
		slices.Equal(a.Trusted, b.Trusted) &&
		slices.Equal(a.Known, b.Known) &&
		slices.Equal(a.ports(), b.ports()) &&
		slices.Equal(a.ClusterCIDRs, b.ClusterCIDRs) &&
		sameElements(a.PodCIDRs, b.PodCIDRs)
}

func sameElements(a, b []netip.Prefix) bool {
	return slices.Equal(canonical(a, netip.Prefix.Compare), canonical(b, netip.Prefix.Compare))
}

// ports returns Port and SourcePorts, each once.
func (n Network) ports() []uint16 {
	ports := append([]uint16{n.Port}, n.SourcePorts...)
	slices.Sort(ports)
	return slices.Compact(ports)
}

// masqueradePorts returns the longest run of ports that has none of weft's, of those that
// any program may use.
func (n Network) masqueradePorts() (low, high int) {
	next := 1024
	for _, port := range append(n.ports(), 0) { // 0 stands for one behind the last
		end := int(port)
		if port == 0 {
			end = 1 << 16
		}
		if end-next > high-low {
			low, high = next, end-1
		}
		next = max(next, end+1)
	}
	return low, high
}

func digit(a netip.Addr) string {
	if a.Is4() {
		return "4"
	}
	return "6"
}

// chain is a chain of the table: a base chain if it has a hook.
type chain struct {
	name     string
	kind     knftables.BaseChainType
	hook     knftables.BaseChainHook
	priority knftables.BaseChainPriority
}

// Base chains have the names of their hooks. prerouting and output come before
// connection tracking and before any DNAT (so do others' raw chains, of which ours
// is the first); the next come before other programs' filters, where the
// destination is the final one; after srcnat comes leaving, where the source is.
var chains = []chain{
	{name: "from_pods"},
	{name: "from_overlay"},
	{name: "from_underlay"},
	{name: "datagrams"},
	{name: "translated"},
	{name: "too_big4"},
	{name: "too_big6"},
	{"prerouting", knftables.FilterType, knftables.PreroutingHook, knftables.RawPriority + "-10"},
	{"input", knftables.FilterType, knftables.InputHook, knftables.FilterPriority + "-10"},
	{"forward", knftables.FilterType, knftables.ForwardHook, knftables.FilterPriority + "-10"},
	{"output", knftables.FilterType, knftables.OutputHook, knftables.RawPriority + "-10"},
	{"postrouting", knftables.FilterType, knftables.PostroutingHook, knftables.FilterPriority + "-10"},
	{"srcnat", knftables.NATType, knftables.PostroutingHook, knftables.SNATPriority},
	{"leaving", knftables.FilterType, knftables.PostroutingHook, knftables.SNATPriority + "+10"},
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
	isOwn := fmt.Sprintf("meta mark & %#x == %#x", uint32(n.MarkMask), n.MarkMask.OwnDatagram())
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
		trusted = []guardRule{{"leaving", "oifname " + names + " accept", "the answers of pods to those who may reach them"}}
	}

	const strangers = "limit rate over 1000/second burst 1000 packets"

	// In each chain the rules come first that most packets end at, and in each rule
	// the condition that most packets fail: every packet pays for what it is asked.
	return append([]guardRule{
		{"prerouting", fromPods + " goto from_pods", "local pods"},
		{"prerouting", fromTUN + " goto from_overlay", "peers' pods"},
		{"prerouting", `iif "lo" accept`, "the node speaks to itself"},
		{"prerouting", "goto from_underlay", "everyone else is a stranger"},

		{"from_pods", "icmpv6 type { nd-router-advert, nd-redirect }" + drop(dropRouterAdvert), "no pod is a router"},
		{"from_pods", "meta l4proto 58 ip6 saddr { ::, fe80::/10 } accept", "neighbour discovery, which never leaves the link"},
		{"from_pods", "ip daddr 127.0.0.0/8" + drop(dropLoopback), "portmap has the kernel route these"},
		{"from_pods", "fib saddr . iif oif missing" + drop(dropSpoofed), "a pod's source is an address that is routed to its veth"},

		// That the source is the peer's, weftd has checked.
		{"from_overlay", "ip daddr 127.0.0.0/8" + drop(dropLoopback), "kube-proxy and portmap have the kernel route these"},
		{"from_overlay", "ip saddr 127.0.0.0/8" + drop(dropLoopback), "kube-proxy and portmap have the kernel route these"},
		{"from_overlay", fmt.Sprintf("meta mark set meta mark | %#x", n.MarkMask.FromOverlay()), "the way back is the overlay, for reverse path checks too"},

		{"from_underlay", toPort + " fib daddr type local goto datagrams", "nodes speak to each other"},
		{"from_underlay", "ip saddr @cluster4" + drop(dropForeignSource), "pods' packets come encapsulated"},
		{"from_underlay", "ip6 saddr @cluster6" + drop(dropForeignSource), "pods' packets come encapsulated"},
		{"from_underlay", "ip saddr 127.0.0.0/8" + drop(dropLoopback), "kube-proxy and portmap have the kernel route these"},
		{"from_underlay", "ip daddr 127.0.0.0/8" + drop(dropLoopback), "kube-proxy and portmap have the kernel route these"},
		{"from_underlay", "ip daddr @cluster4" + notTrusted + drop(dropBare), "other hosts reach pods by hostPort and Service alone, not yet translated here"},
		{"from_underlay", "ip6 daddr @cluster6" + notTrusted + drop(dropBare), "other hosts reach pods by hostPort and Service alone, not yet translated here"},

		{"datagrams", fmt.Sprintf("ip saddr . udp sport @%s4 accept", setTranslated), "an answer to another program's translation"},
		{"datagrams", fmt.Sprintf("ip6 saddr . udp sport @%s6 accept", setTranslated), "an answer to another program's translation"},
		{"datagrams", "ip saddr @senders4 notrack accept", "a full connection table must not stop the overlay"},
		{"datagrams", "ip6 saddr @senders6 notrack accept", "a full connection table must not stop the overlay"},
		{"datagrams", strangers + drop(dropStranger), "peers' datagrams must not wait behind a flood of others; joined ones count as one"},
		{"datagrams", "notrack accept", "weftd tells strangers from peers that have moved"},

		// Whoever knows a node's address can forge these, and the kernel believes them for
		// ten minutes. See ipv4_sk_update_pmtu and icmpv6_notify in the kernel's net/ for how
		// it finds the ports that an ICMP message quotes.
		{"input", "icmp type destination-unreachable icmp code 4 goto too_big4", "weft finds the path's MTU itself"},
		{"input", "icmpv6 type packet-too-big goto too_big6", "weft finds the path's MTU itself"},
		{"too_big4", quoted(ip4Protocol, 8, "!= 17") + "accept", "not about UDP"},
		{"too_big4", quoted(ip4HeaderLength, 4, "!= 5") + drop(dropPathMTU), "the ports stand behind options, where they can't be compared"},
		{"too_big4", quotesPorts(ip4Payload) + drop(dropPathMTU), "about a datagram of this node's"},
		{"too_big4", quotesPort(ip4Payload) + drop(dropPathMTU), "about a datagram to a peer"},
		{"too_big6", quoted(ip6NextHeader, 8, "{ 0, 43, 51, 60 }") + drop(dropPathMTU), "the ports stand behind extension headers, where they can't be compared"},
		{"too_big6", quoted(ip6NextHeader, 8, "17") + quotesPorts(ip6Payload) + drop(dropPathMTU), "about a datagram of this node's"},
		{"too_big6", quoted(ip6NextHeader, 8, "17") + quotesPort(ip6Payload) + drop(dropPathMTU), "about a datagram to a peer"},
		{"too_big6", quoted(ip6NextHeader, 8, "!= 44") + "accept", "not about UDP"},
		{"too_big6", quoted(ip6Payload, 8, "{ 0, 43, 44, 51, 60 }") + drop(dropPathMTU), "as above"},
		{"too_big6", quoted(ip6Payload, 8, "17") + quotesPorts(ip6Payload+fragmentHeader) + drop(dropPathMTU), "as above"},
		{"too_big6", quoted(ip6Payload, 8, "17") + quotesPort(ip6Payload+fragmentHeader) + drop(dropPathMTU), "as above"},

		{"input", toPort + " " + fromPods + drop(dropTunnelInTunnel), "what pods send there can only be forged"},
		{"input", toPort + " " + fromTUN + drop(dropTunnelInTunnel), "nodes speak to weft's port past the overlay only"},
		{"input", toPort + ` iif "lo"` + drop(dropLocalSender), "IPv6 lets every user send under a peer's address (IPV6_FREEBIND)"},

		{"forward", "ct direction reply accept", "the answer to what was let through, whoever translated it"},
		{"forward", fromPods + " " + toEndpoint4 + drop(dropTunnelInTunnel), "what pods send there can only be forged"},
		{"forward", fromPods + " " + toEndpoint6 + drop(dropTunnelInTunnel), "what pods send there can only be forged"},
		{"forward", fmt.Sprintf("iifname != %q accept", n.TUN), "what follows concerns peers' pods"},
		{"forward", toPods + " accept", "what the overlay is for"},
		{"forward", toEndpoint4 + drop(dropTunnelInTunnel), "to a node, through a Service"},
		{"forward", toEndpoint6 + drop(dropTunnelInTunnel), "to a node, through a Service"},
		{"forward", "ct status dnat accept", "Services and hostPorts of this node"},
		{"forward", strings.TrimSpace(drop(dropTransit)), "peers don't reach the underlay, or each other, through this node"},

		{"output", isOwn + " notrack accept", "a full connection table must not stop the overlay"},
		{"output", toEndpoint4 + drop(dropLocalSender), "a datagram of this node's address that weftd did not send is forged"},
		{"output", toEndpoint6 + drop(dropLocalSender), "a datagram of this node's address that weftd did not send is forged"},
		// Only what has a socket is a program's. The kernel itself refuses connections in a
		// pod's name ("reject with tcp reset").
		{"output", "ip saddr @cluster4 meta skuid 0-4294967294 fib saddr type != local" + drop(dropLocalSpoof), "IP_TRANSPARENT lets privileged users do that"},
		{"output", "ip6 saddr @cluster6 meta skuid 0-4294967294 fib saddr type != local" + drop(dropLocalSpoof), "IPV6_FREEBIND lets every user do that"},
		// No packet is lost by these, so they are not counted. For IPv4 there is a sysctl,
		// which holds only where conf.all agrees (send_redirects in ip-sysctl.rst).
		{"output", toPods + " icmp type redirect drop", "a pod that speaks to itself by its hostPort has no better way"},
		{"output", toPods + " icmpv6 type nd-redirect drop", "a pod that speaks to itself by its hostPort has no better way"},

		{"postrouting", "ct status dnat meta l4proto 17 jump translated", "a Service may lead anywhere"},
		{"translated", toEndpoint4 + drop(dropLocalSender), "a datagram of this node's address that weftd did not send is forged"},
		{"translated", toEndpoint6 + drop(dropLocalSender), "a datagram of this node's address that weftd did not send is forged"},
		{"postrouting", isOwn + " " + toTUN + drop(dropTunnelInTunnel), "a tunnel in the tunnel would never end"},
		{"postrouting", toPods + " accept", "the right way to pods"},
		{"postrouting", fmt.Sprintf(`oifname { "lo", %q } accept`, n.TUN), "the right way to pods"},
		{"postrouting", "ip daddr @cluster4" + drop(dropLeak), "not even if a route says so, or the TUN device is gone"},
		{"postrouting", "ip6 daddr @cluster6" + drop(dropLeak), "not even if a route says so, or the TUN device is gone"},
		{"postrouting", "ip saddr @pods4 ip daddr @peer_nodes4" + drop(dropLeak), "pods reach nodes through the overlay only"},
		{"postrouting", "ip6 saddr @pods6 ip6 daddr @peer_nodes6" + drop(dropLeak), "pods reach nodes through the overlay only"},

		{"srcnat", toTUN + " ip saddr != @cluster4 ip saddr != @known4 fib saddr type local masquerade", "peers would drop this node's other addresses"},
		{"srcnat", toTUN + " ip6 saddr != @cluster6 ip6 saddr != @known6 fib saddr type local masquerade", "peers would drop this node's other addresses"},
		{"srcnat", toTUN + " return", "pods and nodes see each other's real addresses"},
		{"srcnat", toPods + " return", "pods and nodes see each other's real addresses"},
		{"srcnat", "ip saddr @pods4 ip daddr != @cluster4 " + udpMasquerade, "answers to weft's ports would be taken for datagrams"},
		{"srcnat", "ip6 saddr @pods6 ip6 daddr != @cluster6 " + udpMasquerade, "answers to weft's ports would be taken for datagrams"},
		{"srcnat", "ip saddr @pods4 ip daddr != @cluster4 " + masquerade, "outside, no router knows the way back to a pod"},
		{"srcnat", "ip6 saddr @pods6 ip6 daddr != @cluster6 " + masquerade, "outside, no router knows the way back to a pod"},

		{"leaving", toPods + " accept", "the right way to pods"},
		{"leaving", fmt.Sprintf(`oifname { "lo", %q } accept`, n.TUN), "the right way to pods"},
	}, append(trusted, []guardRule{
		{"leaving", "ct direction reply ct status snat accept", "of a connection that this node translated, and another program translates back"},
		{"leaving", "ip saddr @cluster4" + drop(dropLeak), "nothing of a pod leaves untranslated, in whatever state its connection is"},
		{"leaving", "ip6 saddr @cluster6" + drop(dropLeak), "nothing of a pod leaves untranslated, in whatever state its connection is"},
		{"leaving", fmt.Sprintf("udp sport %d ct status snat update @%s4 { ip daddr . udp dport }", n.Port, setTranslated), "kube-proxy's translation may take any port"},
		{"leaving", fmt.Sprintf("udp sport %d ct status snat update @%s6 { ip6 daddr . udp dport }", n.Port, setTranslated), "kube-proxy's translation may take any port"},
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

func drop(counter string) string { return fmt.Sprintf(" counter name %q drop", counter) }
