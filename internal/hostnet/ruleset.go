package hostnet

import (
	"net/netip"
	"slices"
	"strconv"
	"time"

	"sigs.k8s.io/knftables"

	"weft/internal/family"
	"weft/internal/nftable"
)

// The named counters of the drop rules: why a packet was dropped.
const (
	dropForeignSource  = "foreign_source"   // a pod's address as source, from the underlay
	dropBare           = "bare_to_pod"      // not encapsulated, from the underlay to a pod's address
	dropSpoofed        = "spoofed_by_pod"   // a pod's packet with a source that isn't the pod's
	dropRouterAdvert   = "router_advert"    // a pod posing as a router
	dropTunnelInTunnel = "tunnel_in_tunnel" // to weft's port, by a pod or through the overlay
	dropNonPeer        = "nonpeer_flood"    // to weft's port, by no peer, and more than enough
	dropTransit        = "overlay_transit"  // out of the overlay, to neither a pod nor this node
	dropLeak           = "bare_to_underlay" // to a pod or by a pod to a peer, past the overlay
	dropPathMTU        = "path_mtu_report"  // "too big" by ICMP, about weft's own datagrams
	dropLoopback       = "loopback"         // a loopback address, from elsewhere than this node
	dropLocalSender    = "local_sender"     // to weft's port of a node, by this node but not by weftd
	dropLocalSpoof     = "spoofed_by_host"  // a pod's address as source, by a program of this node
)

var dropCounters = []string{
	dropForeignSource, dropBare, dropSpoofed, dropRouterAdvert, dropTunnelInTunnel, dropNonPeer, dropTransit, dropLeak, dropPathMTU, dropLoopback, dropLocalSender, dropLocalSpoof,
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

	// Interfaces and sources of local pods' packets: the address is routed to the interface. The
	// packets themselves fill these, after the kernel has looked that up.
	setRouted = "routed"
)

// translatedFor outlasts what connection tracking keeps of a UDP flow
// (nf_conntrack_udp_timeout_stream, 120 s).
const translatedFor = 180 * time.Second

// routedFor bounds for how long a pod goes on sending under an address that is no longer
// routed to it.
const routedFor = time.Second

// ruleset returns the transaction that replaces the table by what n needs, its
// counters starting at counts.
func ruleset(tx *knftables.Transaction, n Network, counts map[string]nftable.Counter, flags ...knftables.TableFlag) *knftables.Transaction {
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	tx.Add(&knftables.Table{Comment: new(identity(n).Comment), Flags: flags})
	for _, name := range dropCounters {
		counter := &knftables.Counter{Name: name}
		if held, ok := counts[name]; ok {
			counter.Packets, counter.Bytes = &held.Packets, &held.Bytes
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
	for _, f := range family.All {
		addDynamicSet(tx, setTranslated+f.Digit(), addrType(f)+" . inet_service", translatedFor)
		addDynamicSet(tx, setRouted+f.Digit(), "iface_index . "+addrType(f), routedFor)
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
	for _, f := range family.All {
		tx.Add(&knftables.Set{Name: name + f.Digit(), Type: addrType(f), Flags: []knftables.SetFlag{knftables.IntervalFlag}})
	}
	for _, p := range prefixes {
		tx.Add(&knftables.Element{Set: name + family.Of(p.Addr()).Digit(), Key: []string{p.String()}})
	}
}

func addAddressSets(tx *knftables.Transaction, name string, addrs []netip.Addr) {
	for _, f := range family.All {
		tx.Add(&knftables.Set{Name: name + f.Digit(), Type: addrType(f)})
	}
	for _, a := range addrs {
		tx.Add(&knftables.Element{Set: name + family.Of(a).Digit(), Key: []string{a.String()}})
	}
}

func addEndpointSets(tx *knftables.Transaction, endpoints []netip.AddrPort) {
	for _, f := range family.All {
		tx.Add(&knftables.Set{Name: setEndpoints + f.Digit(), Type: addrType(f) + " . inet_service"})
	}
	for _, e := range endpoints {
		tx.Add(endpointElement(e))
	}
}

// addDynamicSet adds a set that packets fill, and whose elements go after timeout.
func addDynamicSet(tx *knftables.Transaction, name, elements string, timeout time.Duration) {
	tx.Add(&knftables.Set{Name: name, Type: elements, Flags: []knftables.SetFlag{knftables.DynamicFlag, knftables.TimeoutFlag}, Timeout: &timeout})
}

func endpointElement(e netip.AddrPort) *knftables.Element {
	return &knftables.Element{Set: setEndpoints + family.Of(e.Addr()).Digit(), Key: []string{e.Addr().String(), strconv.Itoa(int(e.Port()))}}
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
		tx.Add(&knftables.Element{Set: name + family.Of(a).Digit(), Key: []string{a.String()}})
	}
	for _, a := range stale {
		tx.Delete(&knftables.Element{Set: name + family.Of(a).Digit(), Key: []string{a.String()}})
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

// addrType is the type of a family's addresses in nft.
func addrType(f family.Family) string { return "ipv" + f.Digit() + "_addr" }
