package fib_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"weft/fib"
	"weft/peer"
)

func newPeer(name, endpoint string, prefixes ...string) *peer.Peer {
	p := &peer.Peer{Name: name, Endpoint: netip.MustParseAddrPort(endpoint)}
	for _, text := range prefixes {
		p.Prefixes = append(p.Prefixes, netip.MustParsePrefix(text))
	}
	return p
}

func newTable(t testing.TB, self *peer.Peer, peers ...*peer.Peer) *fib.Table {
	t.Helper()
	table, err := fib.New(self, peers)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestLongestPrefixWins(t *testing.T) {
	self := newPeer("self", "192.168.77.1:9338", "10.244.1.0/24", "fd00:244:0:1::/64", "192.168.77.1/32")
	wide := newPeer("wide", "192.168.77.2:9338", "10.244.0.0/16", "fd00:244::/48")
	narrow := newPeer("narrow", "[fd00:77::3]:9338", "10.244.7.128/25", "10.244.7.200/32", "fd00:244:0:7::/64", "fd00:77::3/128")
	table := newTable(t, self, wide, narrow)
	for addr, want := range map[string]*peer.Peer{
		"10.244.1.255":         self,
		"10.244.2.0":           wide,
		"10.244.7.127":         wide,
		"10.244.7.128":         narrow,
		"10.244.7.200":         narrow,
		"192.168.77.1":         self,
		"192.168.77.2":         nil,
		"10.245.0.0":           nil,
		"fd00:244:0:1::9":      self,
		"fd00:244:0:7::9":      narrow,
		"fd00:244:0:8::9":      wide,
		"fd00:77::3":           narrow,
		"fd00:77::4":           nil,
		"::ffff:10.244.1.255":  nil, // not an IPv4 address; see netip.Addr.Unmap
		"::10.244.1.255":       nil,
		"0.0.0.0":              nil,
		"255.255.255.255":      nil,
		"fd00:244:0:1::9%eth0": self,
	} {
		got, ok := table.Lookup(netip.MustParseAddr(addr))
		if got != want || ok != (want != nil) {
			t.Errorf("Lookup(%s) = %v, %v; want %v", addr, got, ok, want)
		}
	}
	if owner, ok := table.Lookup(netip.Addr{}); ok {
		t.Errorf("the zero address belongs to %v", owner)
	}
}

func TestSendersAreKnownByEndpointAddress(t *testing.T) {
	self := newPeer("self", "192.168.77.1:9338")
	two, three := newPeer("two", "192.168.77.2:9338"), newPeer("three", "[fd00:77::3]:9338")
	table := newTable(t, self, two, three)
	for addr, want := range map[string]*peer.Peer{
		"192.168.77.2": two, "fd00:77::3": three, "192.168.77.1": nil, "192.168.77.4": nil, "::ffff:192.168.77.2": nil,
	} {
		if got, ok := table.Sender(netip.MustParseAddr(addr)); got != want || ok != (want != nil) {
			t.Errorf("Sender(%s) = %v, %v; want %v", addr, got, ok, want)
		}
	}
	if table.Self() != self || table.Peers() != 2 || table.Size() != 0 {
		t.Errorf("self %v, %d peers, %d prefixes", table.Self(), table.Peers(), table.Size())
	}
}

func TestNothingBelongsToTwoNodes(t *testing.T) {
	self := newPeer("self", "192.168.77.1:9338", "10.244.1.0/24")
	for name, tt := range map[string]struct {
		peers []*peer.Peer
		want  string
	}{
		"a prefix of this node": {[]*peer.Peer{newPeer("two", "192.168.77.2:9338", "10.244.1.0/24")},
			"nodes self and two both own 10.244.1.0/24"},
		"a prefix of two peers": {[]*peer.Peer{newPeer("two", "192.168.77.2:9338", "fd00:244:0:2::/64"), newPeer("three", "192.168.77.3:9338", "fd00:244:0:2::/64")},
			"nodes two and three both own fd00:244:0:2::/64"},
		"an endpoint address of two peers": {[]*peer.Peer{newPeer("two", "192.168.77.2:9338"), newPeer("three", "192.168.77.2:9339")},
			"nodes two and three both have the endpoint address 192.168.77.2"},
		"this node's endpoint address": {[]*peer.Peer{newPeer("two", "192.168.77.1:9339")},
			"nodes self and two both have the endpoint address 192.168.77.1"},
	} {
		if table, err := fib.New(self, tt.peers); table != nil || err == nil || err.Error() != tt.want {
			t.Errorf("%s: %v; want %s", name, err, tt.want)
		}
	}
}

// oracle is the table in its simplest form: it looks at every prefix.
type oracle struct{ nodes []*peer.Peer }

func (o oracle) lookup(addr netip.Addr) (owner *peer.Peer) {
	longest := -1
	for _, n := range o.nodes {
		for _, p := range n.Prefixes {
			if p.Contains(addr) && p.Bits() > longest {
				owner, longest = n, p.Bits()
			}
		}
	}
	return owner
}

func TestTableAgreesWithAScanOfAllPrefixes(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 0))
		nodes := randomNodes(random, 50, 20)
		table := newTable(t, nodes[0], nodes[1:]...)
		for range 2000 {
			addr := randomAddr(random)
			want := oracle{nodes}.lookup(addr)
			if got, ok := table.Lookup(addr); got != want || ok != (want != nil) {
				t.Fatalf("seed %d: Lookup(%s) = %v; want %v", seed, addr, got, want)
			}
		}
	}
}

// randomNodes returns nodes with prefixes of all lengths, close together, so that
// many contain each other.
func randomNodes(random *rand.Rand, nodes, prefixes int) []*peer.Peer {
	taken := make(map[netip.Prefix]bool)
	var all []*peer.Peer
	for i := range nodes {
		p := &peer.Peer{
			Name:     fmt.Sprintf("node%d", i),
			Endpoint: netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}), 9338),
		}
		for range prefixes {
			addr := randomAddr(random)
			prefix := netip.PrefixFrom(addr, random.IntN(addr.BitLen()+1)).Masked()
			if !taken[prefix] {
				taken[prefix] = true
				p.Prefixes = append(p.Prefixes, prefix)
			}
		}
		all = append(all, p)
	}
	return all
}

func randomAddr(random *rand.Rand) netip.Addr {
	few := func() byte { return byte(random.IntN(4) * 85) }
	if random.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{10, few(), few(), few()})
	}
	a := [16]byte{0: 0xfd}
	for i := range 15 {
		a[i+1] = few()
	}
	return netip.AddrFrom16(a)
}

func TestLookupAllocatesNothing(t *testing.T) {
	table := newTable(t, newPeer("self", "192.168.77.1:9338", "10.244.1.0/24"), newPeer("two", "[fd00:77::2]:9338", "fd00:244:0:2::/64"))
	v4, v6, sender := netip.MustParseAddr("10.244.1.7"), netip.MustParseAddr("fd00:244:0:2::7"), netip.MustParseAddr("fd00:77::2")
	if n := testing.AllocsPerRun(1000, func() {
		table.Lookup(v4)
		table.Lookup(v6)
		table.Sender(sender)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
