package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"weft/internal/nftable"
	"weft/internal/strict"
	"weft/internal/testnet"
)

// verdict is a row of the table in docs/SECURITY.md: what becomes of packets. An empty
// list of classes stands for all.
type verdict struct {
	from, source, destination, kind, form []string
	is                                    string
}

// packetClass is one combination of what the table distinguishes.
type packetClass struct{ family, from, source, destination, kind, form string }

func (c packetClass) String() string {
	return fmt.Sprintf("IPv%s from %s, %s to %s, %s, %s", c.family, c.from, c.source, c.destination, c.kind, c.form)
}

func (v verdict) covers(c packetClass) bool {
	is := func(list []string, class string) bool { return len(list) == 0 || slices.Contains(list, class) }
	return is(v.from, c.from) && is(v.source, c.source) && is(v.destination, c.destination) && is(v.kind, c.kind) &&
		(is(v.form, c.form) || slices.Contains(v.form, "IPv"+c.family))
}

// verdicts reads the table out of docs/SECURITY.md.
func verdicts(t testing.TB) []verdict {
	t.Helper()
	text, err := os.ReadFile("../../docs/SECURITY.md")
	check(t, err)
	_, section, found := strings.Cut(string(text), "## The guard table's verdicts\n")
	if !found {
		t.Fatal("docs/SECURITY.md has no verdicts of the guard table")
	}
	var all []verdict
	for _, line := range regexp.MustCompile(`(?m)^\|(.+)\|$`).FindAllStringSubmatch(strings.Split(section, "\n## ")[0], -1) {
		cells := strings.Split(line[1], "|")
		if len(cells) != 6 || strings.Contains(cells[0], "--") || strings.TrimSpace(cells[0]) == "from" {
			continue
		}
		list := func(cell string) []string {
			if cell = strings.TrimSpace(cell); cell == "any" {
				return nil
			}
			return strings.Split(cell, ", ")
		}
		all = append(all, verdict{list(cells[0]), list(cells[1]), list(cells[2]), list(cells[3]), list(cells[4]),
			strings.Trim(strings.TrimSpace(cells[5]), "`")})
	}
	return all
}

// The classes of which the table speaks. Each packet goes from "pod" unless it says so.
var (
	ingresses    = []string{"underlay", "pod", "overlay", "host"}
	sources      = []string{"this pod", "another pod", "absent pod", "peer's pod", "node's overlay address", "node", "peer", "outside", "loopback"}
	destinations = []string{"pod", "absent pod", "peer's pod", "node's overlay address", "node", "peer", "outside", "loopback", "hostPort", "Service at a peer"}
	kinds        = []string{"UDP", "UDP to weft's port", "TCP", "ICMP echo", "too big about weft", "too big about others"}
	forms        = []string{"whole", "fragments", "options"}

	// Of a bridge's packets a sample is enough: TestGuardVerdicts tries each form.
	bridgedForms = testnet.Sampled(forms[:1], forms)
)

func allClasses(family string) []packetClass {
	var all []packetClass
	for _, from := range ingresses {
		for _, source := range sources {
			for _, destination := range destinations {
				for _, kind := range kinds {
					for _, form := range forms {
						// A Service is a port, and a fragment needs a payload.
						if (destination == "hostPort" || destination == "Service at a peer") && kind != "UDP" {
							continue
						}
						all = append(all, packetClass{family, from, source, destination, kind, form})
					}
				}
			}
		}
	}
	return all
}

const (
	testClass  = 42 << 2 // the traffic class of the test's packets
	fenceClass = 41 << 2
)

// verdictRig sends packets to a node and sees what becomes of them.
//
//	pod1, pod2 ── node eth0 ── outside, which also has the peers' MAC addresses
//	              weft0, whose other end is the test
type verdictRig struct {
	*site
	sockets map[string]int // where frames arrive: pod1, pod2, underlay
	ports   map[string]int // where frames are sent: pod, underlay
	frames  map[string][]byte
	raw     map[string]int // by family
	serial  uint16

	// brNetfilter says that frames meet the guard before the kernel has looked at them, and
	// silent that the kernel may drop first what the guard would.
	brNetfilter, silent bool
}

// either says whether the kernel has dropped what the guard was to drop, or the reverse, and
// that is the same.
func (r *verdictRig) either(c packetClass, got, want string) bool {
	translated := c.from == "underlay" && (c.destination == "hostPort" || c.destination == "Service at a peer")
	switch {
	case !r.brNetfilter:
		return false
	case got == "kernel": // br_netfilter has another program's translation followed before the guard's other hooks
		return r.silent || translated && want != "pod"
	case got == dropLoopback && c.source == "loopback": // on a bridge, the node's own too
		return true
	}
	return want == "kernel" && slices.Contains(dropCounters, got)
}

func newVerdictRig(t *testing.T) *verdictRig {
	t.Helper()
	return newVerdictRigAt(t, newBareSite(t))
}

func newVerdictRigAt(t *testing.T, s *site) *verdictRig {
	t.Helper()
	r := &verdictRig{site: s, sockets: map[string]int{}, ports: map[string]int{}, frames: map[string][]byte{}, raw: map[string]int{}}
	s.node.run(t, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.eth0.rp_filter=0", "net.ipv4.conf.pod1.rp_filter=0",
		"net.ipv4.conf.all.route_localnet=1", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
	link := func(ns namespace, name string) net.HardwareAddr {
		m, err := net.ParseMAC(regexp.MustCompile(`link/ether (\S+)`).FindStringSubmatch(ns.ip(t, "link show "+name))[1])
		check(t, err)
		return m
	}
	far := link(s.outside, "eth0")
	for _, a := range addressings {
		for _, to := range []netip.Addr{a.outside, a.remoteNode} {
			s.node.ip(t, fmt.Sprintf("neigh replace %s lladdr %s dev eth0 nud permanent", to, far))
		}
		s.node.ip(t, fmt.Sprintf("neigh replace %s lladdr %s dev pod1 nud permanent", a.pod1, link(s.pod1, "eth0")))
		s.node.ip(t, fmt.Sprintf("neigh replace %s lladdr %s dev pod2 nud permanent", a.pod2, link(s.pod2, "eth0")))
	}
	s.node.nft(t, fmt.Sprintf(`table inet observer {
		counter delivered { }
		chain prerouting {
			type nat hook prerouting priority -100;
			fib daddr type local udp dport 8080 meta nfproto ipv4 dnat ip to 10.244.1.12:%[1]d
			fib daddr type local udp dport 8080 meta nfproto ipv6 dnat ip6 to [fd00:244:0:1::12]:%[1]d
			fib daddr type local udp dport 8081 meta nfproto ipv4 dnat ip to 192.0.2.20:9338
			fib daddr type local udp dport 8081 meta nfproto ipv6 dnat ip6 to [2001:db8::20]:9338
		}
		chain answers { # there are none
			type filter hook output priority -320;
			icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
			icmp type echo-reply drop
			icmpv6 type echo-reply drop
			tcp flags & rst == rst drop
			ip dscp { 41, 42 } accept
			ip6 dscp { 41, 42 } accept
			drop
		}
		chain output {
			type nat hook output priority -100;
			fib daddr type local udp dport 8080 meta nfproto ipv4 dnat ip to 10.244.1.12:%[1]d
			fib daddr type local udp dport 8080 meta nfproto ipv6 dnat ip6 to [fd00:244:0:1::12]:%[1]d
			fib daddr type local udp dport 8081 meta nfproto ipv4 dnat ip to 192.0.2.20:9338
			fib daddr type local udp dport 8081 meta nfproto ipv6 dnat ip6 to [2001:db8::20]:9338
		}
		chain input {
			type filter hook input priority 300;
			ip dscp 42 counter name delivered
			ip6 dscp 42 counter name delivered
		}
	}`, echoPort))
	for _, pod := range []namespace{s.pod1, s.pod2, s.outside} { // nor elsewhere, but what a packet socket sends
		pod.nft(t, "table inet mute { chain output { type filter hook output priority 0; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; drop; }; }")
	}
	open := func(ns namespace, name string) int {
		var fd int
		ns.do(t, func() {
			device, err := net.InterfaceByName(name)
			check(t, err)
			const all = unix.ETH_P_ALL>>8&0xff | unix.ETH_P_ALL&0xff<<8
			fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			check(t, err)
			check(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: device.Index}))
		})
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	r.sockets["pod1"], r.sockets["pod2"], r.sockets["underlay"] = open(s.pod1, "eth0"), open(s.pod2, "eth0"), open(s.outside, "eth0")
	r.ports["pod"], r.ports["underlay"] = r.sockets["pod1"], r.sockets["underlay"]
	r.frames["pod"] = slices.Concat(link(s.node, "pod1"), link(s.pod1, "eth0"))
	r.frames["underlay"] = slices.Concat(link(s.node, "eth0"), link(s.outside, "eth0"))
	s.node.do(t, func() {
		for family, domain := range map[string]int{"4": unix.AF_INET, "6": unix.AF_INET6} {
			fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
			check(t, err)
			r.raw[family] = fd
			t.Cleanup(func() { unix.Close(fd) })
		}
		check(t, unix.SetsockoptInt(r.raw["6"], unix.SOL_IPV6, unix.IPV6_HDRINCL, 1))
	})
	return r
}

// counters returns the counters of the guard table and of the observer.
func (r *verdictRig) counters(t testing.TB) map[string]uint64 {
	t.Helper()
	counts := make(map[string]uint64)
	r.node.do(t, func() {
		for _, table := range []string{"weft", "observer"} {
			counters, err := nftable.Counters(nftable.Inet, table)
			check(t, err)
			for name, c := range counters {
				counts[name] = c.Packets
			}
		}
	})
	return counts
}

// arrived takes in what has arrived at each place. It returns where the test's packets
// were, and whether the fence was there.
func (r *verdictRig) arrived(t testing.TB) (places []string, fence bool) {
	t.Helper()
	buf := make([]byte, 1<<16)
	see := func(place string, packet []byte) {
		if len(packet) < 40 {
			return
		}
		class, source := packet[1], packet[12:16]
		if packet[0]>>4 == 6 {
			class, source = packet[0]<<4|packet[1]>>4, packet[8:24]
		}
		from, _ := netip.AddrFromSlice(source)
		switch {
		case class&^3 == fenceClass:
			fence = true
		case class&^3 != testClass:
		case place == "underlay" && strict.Within(netip.PrefixFrom(from, from.BitLen()), r.network.ClusterCIDRs):
			places = append(places, "in clear")
		case !slices.Contains(places, place):
			places = append(places, place)
		}
	}
	for place, fd := range r.sockets {
		for {
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			check(t, err)
			if from.(*unix.SockaddrLinklayer).Pkttype != unix.PACKET_OUTGOING && n > 14 {
				see(place, buf[14:n])
			}
		}
	}
	for {
		raw, err := r.tun.SyscallConn()
		check(t, err)
		var n int
		var readErr error
		check(t, raw.Control(func(fd uintptr) { n, readErr = unix.Read(int(fd), buf) }))
		if readErr != nil {
			return places, fence
		}
		see("overlay", buf[:n])
	}
}

// send puts a packet into the node where it comes from.
func (r *verdictRig) send(t testing.TB, from string, packet []byte) {
	t.Helper()
	family, etherType := "4", uint16(unix.ETH_P_IP)
	if packet[0]>>4 == 6 {
		family, etherType = "6", unix.ETH_P_IPV6
	}
	switch from {
	case "overlay":
		raw, err := r.tun.SyscallConn()
		check(t, err)
		check(t, raw.Control(func(fd uintptr) { _, _ = unix.Write(int(fd), packet) }))
	case "host":
		var to unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte(packet[16:20])}
		if family == "6" {
			to = &unix.SockaddrInet6{Addr: [16]byte(packet[24:40])}
		}
		_ = unix.Sendto(r.raw[family], packet, 0, to) // the guard refuses some
	default:
		frame := binary.BigEndian.AppendUint16(slices.Clone(r.frames[from]), etherType)
		_, err := unix.Write(r.ports[from], append(frame, packet...))
		check(t, err)
	}
}

// becomes sends a packet and returns what became of it.
func (r *verdictRig) becomes(t testing.TB, c packetClass) string {
	t.Helper()
	before := r.counters(t)
	for _, packet := range r.packets(c) {
		r.send(t, c.from, packet)
	}
	// A packet that is sent behind it arrives behind it.
	a := addressings[map[string]int{"4": 0, "6": 1}[c.family]]
	fences := map[string][2]netip.Addr{
		"pod": {a.pod1, a.pod2}, "overlay": {a.remotePod, a.pod2}, "host": {a.node, a.pod2}, "underlay": {a.outside, a.node}}
	r.serial++
	ends := fences[c.from]
	dport := uint16(9)
	if c.from == "underlay" {
		dport = 8080
	}
	r.send(t, c.from, ipPacket(ends[0], ends[1], unix.IPPROTO_UDP, udpTo(ends[0], ends[1], r.serial, dport), fenceClass, nil))
	var places []string
	passed := eventually(func() bool {
		more, fence := r.arrived(t)
		places = append(places, more...)
		return fence
	})
	if !passed {
		t.Fatalf("%s: what was sent behind it is lost", c)
	}
	for name, n := range r.counters(t) {
		if n > before[name] && name != "nonpeer_flood" {
			places = append(places, strings.Replace(name, "delivered", "node", 1))
		}
	}
	slices.Sort(places)
	places = slices.Compact(places)
	// Without the first fragment, the second comes to no program.
	if c.form == "fragments" && len(places) == 2 && places[1] == "node" {
		places = places[:1]
	}
	if len(places) == 0 {
		return "kernel"
	}
	return strings.Replace(strings.Join(places, " and "), "pod2", "pod", 1)
}

// packets returns a packet of a class, in its fragments.
func (r *verdictRig) packets(c packetClass) [][]byte {
	a := addressings[map[string]int{"4": 0, "6": 1}[c.family]]
	loopback := netip.MustParseAddr(map[string]string{"4": "127.0.0.1", "6": "::1"}[c.family])
	from := map[string]netip.Addr{"this pod": a.pod1, "another pod": a.pod2, "absent pod": a.absentPod, "peer's pod": a.remotePod,
		"node's overlay address": a.overlay, "node": a.node, "peer": a.remoteNode, "outside": a.outside, "loopback": loopback}[c.source]
	to := map[string]netip.Addr{"pod": a.pod2, "absent pod": a.absentPod, "peer's pod": a.remotePod, "node's overlay address": a.overlay,
		"node": a.node, "peer": a.remoteNode, "outside": a.outside, "loopback": loopback, "hostPort": a.node, "Service at a peer": a.node}[c.destination]
	r.serial++
	sport := 10000 + r.serial%30000
	icmp := byte(unix.IPPROTO_ICMP)
	if c.family == "6" {
		icmp = unix.IPPROTO_ICMPV6
	}
	var protocol byte
	var payload []byte
	switch c.kind {
	case "UDP", "UDP to weft's port":
		dport := uint16(echoPort - 1)
		switch {
		case c.kind != "UDP":
			dport = 9338
		case c.destination == "hostPort":
			dport = 8080
		case c.destination == "Service at a peer":
			dport = 8081
		}
		protocol, payload = unix.IPPROTO_UDP, udpTo(from, to, sport, dport)
	case "TCP":
		tcp := make([]byte, 40)
		binary.BigEndian.PutUint16(tcp, sport)
		binary.BigEndian.PutUint16(tcp[2:], echoPort)
		tcp[12], tcp[13], tcp[15] = 5<<4, 2, 255
		binary.BigEndian.PutUint16(tcp[16:], pseudoChecksum(from, to, unix.IPPROTO_TCP, tcp))
		protocol, payload = unix.IPPROTO_TCP, tcp
	case "ICMP echo":
		message := make([]byte, 40)
		message[0] = map[string]byte{"4": 8, "6": 128}[c.family]
		binary.BigEndian.PutUint16(message[4:], sport)
		protocol, payload = icmp, message
	default:
		q := quote{sport: 50000, dport: 9338}
		if c.kind == "too big about others" {
			q = quote{sport: sport, dport: 53}
		}
		protocol, payload = icmp, tooBig(q.bytes(a.node, a.remoteNode))
		payload[2], payload[3] = 0, 0
	}
	if protocol == icmp {
		sum := checksum(payload)
		if c.family == "6" {
			sum = pseudoChecksum(from, to, icmp, payload)
		}
		binary.BigEndian.PutUint16(payload[2:], sum)
	}
	switch c.form {
	case "fragments":
		return fragments(from, to, protocol, payload, uint32(r.serial))
	case "options":
		if c.family == "4" {
			return [][]byte{ipPacket(from, to, protocol, payload, testClass, []byte{1, 1, 1, 0})}
		}
		return [][]byte{ipPacket(from, to, unix.IPPROTO_DSTOPTS, append([]byte{protocol, 0, 1, 4, 0, 0, 0, 0}, payload...), testClass, nil)}
	}
	return [][]byte{ipPacket(from, to, protocol, payload, testClass, nil)}
}

func udpTo(from, to netip.Addr, sport, dport uint16) []byte {
	udp := make([]byte, 40)
	binary.BigEndian.PutUint16(udp, sport)
	binary.BigEndian.PutUint16(udp[2:], dport)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	binary.BigEndian.PutUint16(udp[6:], pseudoChecksum(from, to, unix.IPPROTO_UDP, udp))
	return udp
}

// pseudoChecksum is the checksum of what UDP, TCP and ICMPv6 sum.
func pseudoChecksum(from, to netip.Addr, protocol byte, b []byte) uint16 {
	pseudo := slices.Concat(from.AsSlice(), to.AsSlice(), []byte{0, protocol, byte(len(b) >> 8), byte(len(b))}, b)
	return checksum(pseudo)
}

// ipPacket puts an IP header before a payload.
func ipPacket(from, to netip.Addr, protocol byte, payload []byte, class byte, options []byte) []byte {
	if from.Is6() {
		ip := make([]byte, 40)
		ip[0], ip[1], ip[6], ip[7] = 0x60|class>>4, class<<4, protocol, 64
		binary.BigEndian.PutUint16(ip[4:], uint16(len(payload)))
		copy(ip[8:], from.AsSlice())
		copy(ip[24:], to.AsSlice())
		return append(ip, payload...)
	}
	ip := append(make([]byte, 20), options...)
	ip[0], ip[1], ip[8], ip[9] = 0x40|byte(len(ip)/4), class, 64, protocol
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(payload)))
	copy(ip[12:], from.AsSlice())
	copy(ip[16:], to.AsSlice())
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	return append(ip, payload...)
}

// fragments cuts a packet in two behind the first 24 bytes of its payload.
func fragments(from, to netip.Addr, protocol byte, payload []byte, id uint32) [][]byte {
	const first = 24
	if from.Is6() {
		header := func(offset int, more byte) []byte {
			return binary.BigEndian.AppendUint32([]byte{protocol, 0, byte(offset >> 8), byte(offset) | more}, id)
		}
		return [][]byte{
			ipPacket(from, to, unix.IPPROTO_FRAGMENT, append(header(0, 1), payload[:first]...), testClass, nil),
			ipPacket(from, to, unix.IPPROTO_FRAGMENT, append(header(first, 0), payload[first:]...), testClass, nil),
		}
	}
	cut := func(part []byte, flags, offset byte) []byte {
		p := ipPacket(from, to, protocol, part, testClass, nil)
		binary.BigEndian.PutUint16(p[4:], uint16(id))
		p[6], p[7], p[10], p[11] = flags, offset, 0, 0
		binary.BigEndian.PutUint16(p[10:], checksum(p[:20]))
		return p
	}
	return [][]byte{cut(payload[:first], 0x20, 0), cut(payload[first:], 0, first/8)}
}

// mismatches compares what becomes of each class with the table, and returns the first few.
func (r *verdictRig) mismatches(t testing.TB, table []verdict, forms []string, most int) (found []string) {
	t.Helper()
	// On one processor the kernel handles packets in the order in which they were sent.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, one unix.CPUSet
	check(t, unix.SchedGetaffinity(0, &before))
	for cpu := range 1024 {
		if before.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	check(t, unix.SchedSetaffinity(0, &one))
	defer func() { _ = unix.SchedSetaffinity(0, &before) }()
	for _, family := range []string{"4", "6"} {
		for _, c := range allClasses(family) {
			if !slices.Contains(forms, c.form) {
				continue
			}
			i := slices.IndexFunc(table, func(v verdict) bool { return v.covers(c) })
			want := "no row"
			if i >= 0 {
				want = table[i].is
			}
			if got := r.becomes(t, c); got != want && !r.either(c, got, want) {
				found = append(found, fmt.Sprintf("%s: %s, the table says %s", c, got, want))
				if len(found) >= most {
					return found
				}
			}
		}
	}
	return found
}

// TestGuardVerdicts: each packet of each class that the table in docs/SECURITY.md
// distinguishes meets the verdict that stands there. A guard in which a rule is missing or
// wrong is found out by the same comparison.
func TestGuardVerdicts(t *testing.T) {
	r, table := newVerdictRig(t), verdicts(t)
	for _, m := range r.mismatches(t, table, forms, 20) {
		t.Error(m)
	}
	if t.Failed() {
		return
	}
	for _, defect := range []struct{ name, command string }{
		{"pods may forge their source", "flush chain inet weft from_pods"},
		{"the overlay reaches the loopback", "flush chain inet weft from_overlay"},
		{"the overlay reaches everything", "flush chain inet weft forward"},
		{"anything local is weftd's", "flush chain inet weft output"},
		{"anything leaves", "flush chain inet weft postrouting"},
		{"packets leave untranslated", "insert rule inet weft postrouting ip saddr @cluster4 accept"},
		{"forged datagrams leave through a Service", "flush chain inet weft translated"},
		{"path MTUs are believed", "flush chain inet weft too_big4"},
		{"a set lacks its prefix", "delete element inet weft cluster6 { fd00:244::/48 }"},
		{"weft's port is another", "flush set inet weft endpoints4"},
	} {
		r.node.nft(t, defect.command)
		if r.mismatches(t, table, forms[:1], 1) == nil {
			t.Errorf("not found: %s", defect.name)
		}
		r.host.guard.holds = nil
		r.node.apply(t, r.host, r.network)
	}
}

// TestClosedGuardLetsNothingOut: of a guard that is made from the configuration alone, no
// packet of a pod leaves the node, whatever a pod or a program sends and wherever to.
func TestClosedGuardLetsNothingOut(t *testing.T) {
	r := newVerdictRig(t)
	r.node.nft(t, "delete table inet weft")
	r.node.protect(t, newHost(), configured())
	for _, family := range []string{"4", "6"} {
		for _, c := range allClasses(family) {
			fromPod := c.from == "pod" && c.source == "this pod" || c.from == "host" && c.source != "node" && c.source != "peer"
			if !fromPod || c.source == "outside" || c.source == "loopback" || c.form != "whole" {
				continue
			}
			switch got := r.becomes(t, c); {
			case strings.Contains(got, "underlay") && got != dropLeak, strings.Contains(got, "clear"):
				t.Errorf("%s: %s", c, got)
			case c.from == "pod" && c.destination == "pod" && got != "pod":
				t.Errorf("%s: %s, want pod: pods of a node speak to each other", c, got)
			}
		}
	}
}
