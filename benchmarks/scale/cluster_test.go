package scale

import (
	"fmt"
	"net/netip"
	"testing"

	"weft/fib"
	"weft/peer"
)

// size is that of a cluster.
type size struct {
	name     string
	nodes    int
	prefixes int // per node; half of them IPv4, half IPv6
}

var (
	// largest is as large as Kubernetes supports, with a pod CIDR of each family.
	largest = size{name: "5000 nodes", nodes: 5000, prefixes: 2}

	// million is far beyond.
	million = size{name: "1000000 prefixes", nodes: 5000, prefixes: 200}
)

// cluster returns all nodes, this one first. Port distinguishes clusters that are
// otherwise the same.
func (s size) cluster(port uint16) []*peer.Peer {
	nodes := make([]*peer.Peer, s.nodes)
	for i := range nodes {
		p := &peer.Peer{
			Name:     fmt.Sprintf("node%d", i),
			Endpoint: netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}), port),
		}
		for j := range s.prefixes / 2 {
			v4, v6 := s.addr(i, j, false), s.addr(i, j, true)
			p.Prefixes = append(p.Prefixes, netip.PrefixFrom(v4, 28).Masked(), netip.PrefixFrom(v6, 64).Masked())
		}
		nodes[i] = p
	}
	return nodes
}

// addr returns an address in a node's prefix number j of a family.
func (s size) addr(node, j int, ipv6 bool) netip.Addr {
	n := node*s.prefixes/2 + j
	if ipv6 {
		return netip.AddrFrom16([16]byte{0xfd, 0, 0, 0, 0, byte(n >> 16), byte(n >> 8), byte(n), 15: 1})
	}
	n <<= 4 // a /28 holds 16 addresses
	return netip.AddrFrom4([4]byte{byte(10 + n>>24), byte(n >> 16), byte(n >> 8), byte(n | 1)})
}

// addrs returns an address in each prefix of a family.
func (s size) addrs(ipv6 bool) []netip.Addr {
	var all []netip.Addr
	for i := range s.nodes {
		for j := range s.prefixes / 2 {
			all = append(all, s.addr(i, j, ipv6))
		}
	}
	return all
}

func newTable(tb testing.TB, nodes []*peer.Peer) *fib.Table {
	tb.Helper()
	table, err := fib.New(nodes[0], nodes[1:])
	if err != nil {
		tb.Fatal(err)
	}
	return table
}
