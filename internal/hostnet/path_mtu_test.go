package hostnet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"weft/internal/testnet"
)

// quote is the packet that an ICMP message quotes, from the node to a peer.
type quote struct {
	name         string
	protocol     byte // 17 if 0
	sport, dport uint16
	options      int    // bytes of IPv4 options
	headers      []byte // IPv6 extension headers, each of 8 bytes
	cut          int    // bytes missing at the end of 8 of the transport's header
}

// bytes returns the quoted packet.
func (q quote) bytes(from, to netip.Addr) []byte {
	protocol := q.protocol
	if protocol == 0 {
		protocol = unix.IPPROTO_UDP
	}
	udp := binary.BigEndian.AppendUint16(nil, q.sport)
	udp = binary.BigEndian.AppendUint16(udp, q.dport)
	udp = append(udp, 0x05, 0, 0, 0)
	udp = udp[:len(udp)-q.cut]
	if from.Is4() {
		ip := make([]byte, 20+q.options)
		ip[0] = byte(0x45 + q.options/4)
		binary.BigEndian.PutUint16(ip[2:], 1400)
		ip[6], ip[8], ip[9] = 0x40, 63, protocol
		copy(ip[12:], from.AsSlice())
		copy(ip[16:], to.AsSlice())
		for i := 20; i < len(ip); i++ {
			ip[i] = 1 // no operation
		}
		return append(ip, udp...)
	}
	ip := make([]byte, 40)
	ip[0], ip[6], ip[7] = 0x60, protocol, 63
	binary.BigEndian.PutUint16(ip[4:], 1360)
	copy(ip[8:], from.AsSlice())
	copy(ip[24:], to.AsSlice())
	for i := range q.headers {
		extension := make([]byte, 8)
		extension[0] = protocol
		if i+1 < len(q.headers) {
			extension[0] = q.headers[i+1]
		}
		ip = append(ip, extension...)
	}
	if len(q.headers) > 0 {
		ip[6] = q.headers[0]
	}
	return append(ip, udp...)
}

// tooBig is the ICMP message that says the quoted packet exceeds an MTU of 1280.
func tooBig(quoted []byte) []byte {
	message := []byte{3, 4, 0, 0, 0, 0, 0x05, 0x00}
	if quoted[0]>>4 == 6 {
		message[0], message[1] = 2, 0 // the kernel adds the checksum
		return append(message, quoted...)
	}
	message = append(message, quoted...)
	binary.BigEndian.PutUint16(message[2:], checksum(message))
	return message
}

// checksum is RFC 1071's.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := range b {
		sum += uint32(b[i]) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// sendICMP sends an ICMP message of the family of the addresses.
func (ns namespace) sendICMP(t testing.TB, from, to netip.Addr, message []byte) {
	t.Helper()
	network := "ip4:icmp"
	if to.Is6() {
		network = "ip6:ipv6-icmp"
	}
	ns.do(t, func() {
		conn, err := net.ListenPacket(network, from.String())
		check(t, err)
		defer conn.Close()
		_, err = conn.WriteTo(message, &net.IPAddr{IP: to.AsSlice()})
		check(t, err)
	})
}

// No ICMP message about weft's own datagrams comes to the kernel's cache of path MTUs,
// from any sender and however it quotes them; those about others' do.
func TestGuardDropsForgedPathMTUs(t *testing.T) {
	s := newSite(t)
	const foreign = 40000
	for _, a := range addressings {
		for _, port := range []uint16{50000, 50001, foreign} {
			s.node.do(t, func() {
				conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.node, port)))
				check(t, err)
				t.Cleanup(func() { conn.Close() })
			})
		}
	}
	cached := func(to netip.Addr) bool {
		return strings.Contains(s.node.ip(t, fmt.Sprintf("route get %s", to)), "mtu 1280")
	}
	hostile := map[string][]quote{
		"4": {
			{name: "source port", sport: 50000, dport: 9338},
			{name: "second source port, other port", sport: 50001, dport: 9400},
			{name: "weft's port as source", sport: 9338, dport: 9338},
			{name: "to weft's port", sport: foreign, dport: 9338},
			{name: "one option", sport: 50000, dport: 9338, options: 4},
			{name: "all options", sport: 50001, dport: 9338, options: 40},
		},
		"6": {
			{name: "source port", sport: 50000, dport: 9338},
			{name: "second source port, other port", sport: 50001, dport: 9400},
			{name: "weft's port as source", sport: 9338, dport: 9338},
			{name: "to weft's port", sport: foreign, dport: 9338},
			{name: "hop-by-hop options", sport: 50000, dport: 9338, headers: []byte{0}},
			{name: "destination options", sport: 50000, dport: 9338, headers: []byte{60}},
			{name: "routing header", sport: 50000, dport: 9338, headers: []byte{43}},
			{name: "authentication header", sport: 50000, dport: 9338, headers: []byte{51}},
			{name: "fragment", sport: 50000, dport: 9338, headers: []byte{44}},
			{name: "fragment to weft's port", sport: foreign, dport: 9338, headers: []byte{44}},
			{name: "fragment and options", sport: 50000, dport: 9338, headers: []byte{44, 60}},
			{name: "options and fragment", sport: 50000, dport: 9338, headers: []byte{0, 44}},
		},
	}
	forEachFamily(t, func(t *testing.T, a addressing) {
		senders := []struct {
			name string
			ns   namespace
			from netip.Addr
		}{{"underlay", s.outside, a.outside}, {"pod", s.pod1, a.pod1}, {"overlay", s.remote, a.remotePod}, {"node", s.node, a.node}}
		for _, from := range senders {
			for _, q := range hostile[a.family] {
				before := s.node.drops(t)[dropPathMTU]
				from.ns.sendICMP(t, from.from, a.node, tooBig(q.bytes(a.node, a.remoteNode)))
				if !eventually(func() bool { return s.node.drops(t)[dropPathMTU] == before+1 }) {
					t.Errorf("%s from %s: not dropped", q.name, from.name)
				}
				if cached(a.remoteNode) {
					t.Fatalf("%s from %s: the node believes it: %s", q.name, from.name, s.node.ip(t, "route get "+a.remoteNode.String()))
				}
			}
			// The kernel believes no quote that is cut; this one still has the port that gives it away.
			before := s.node.drops(t)[dropPathMTU]
			from.ns.sendICMP(t, from.from, a.node, tooBig(quote{sport: 50000, dport: 9338, cut: 6}.bytes(a.node, a.remoteNode)))
			if !eventually(func() bool { return s.node.drops(t)[dropPathMTU] == before+1 }) {
				t.Errorf("a quote that is cut from %s: not dropped", from.name)
			}
		}
		before := s.node.drops(t)[dropPathMTU]
		friendly := []quote{{sport: foreign, dport: 53}}
		if a.family == "6" {
			friendly = append(friendly, quote{sport: foreign, dport: 53, headers: []byte{44}})
		}
		for i, q := range friendly {
			to := a.outside
			for range i { // a destination for each
				to = to.Next()
			}
			s.outside.sendICMP(t, a.outside, a.node, tooBig(q.bytes(a.node, to)))
			if !eventually(func() bool { return cached(to) }) {
				t.Errorf("a report about another program's datagram is lost: %v", q)
			}
		}
		if got := s.node.drops(t)[dropPathMTU]; got != before {
			t.Errorf("%d of others' reports dropped", got-before)
		}
		if cached(a.remoteNode) {
			t.Error("the node believes a quote that is cut")
		}
	})
}

// eventually waits for what the kernel does a moment later.
func eventually(holds func() bool) bool {
	return nil == testnet.Wait(context.Background(), "the kernel", func(context.Context) error {
		if !holds() {
			return errors.New("it does not hold")
		}
		return nil
	})
}
