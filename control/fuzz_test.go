package control

import (
	"net/netip"
	"testing"

	"weft/peer"
)

// reader takes a State out of the fuzzer's bytes: whatever is left when they end is zero.
type reader []byte

func (r *reader) take(n int) []byte {
	out := make([]byte, n)
	*r = (*r)[copy(out, *r):]
	return out
}

func (r *reader) addr() netip.Addr {
	switch kind := r.take(1)[0]; kind % 8 {
	case 0:
		return netip.Addr{}
	case 1:
		return netip.AddrFrom16([16]byte(r.take(16)))
	case 2:
		return netip.AddrFrom16([16]byte(r.take(16))).WithZone("eth0")
	case 3: // IPv4-mapped
		return netip.AddrFrom16(netip.AddrFrom4([4]byte(r.take(4))).As16())
	case 4: // in an IPv6 cluster CIDR
		return netip.AddrFrom16([16]byte{0xfd, 0, 2, 0x44, 0, 0, 0, r.take(1)[0]})
	case 5: // in an IPv4 cluster CIDR
		return netip.AddrFrom4([4]byte{10, 244, r.take(1)[0], 0})
	default:
		return netip.AddrFrom4([4]byte(r.take(4)))
	}
}

func (r *reader) prefix() netip.Prefix { return netip.PrefixFrom(r.addr(), int(r.take(1)[0])) }

func (r *reader) node() Node {
	names := []string{"node1", "node2", "node3", "", "Node_4", "\xff"}
	n := Node{Name: names[int(r.take(1)[0])%len(names)]}
	n.Endpoint = netip.AddrPortFrom(r.addr(), uint16(r.take(1)[0]))
	for range r.take(1)[0] % 4 {
		n.PodCIDRs = append(n.PodCIDRs, r.prefix())
	}
	n.VTEPMAC = peer.MAC(r.take(6))
	return n
}

// Any State is either refused, or makes a plan in which every address has one owner.
func FuzzNewPlan(f *testing.F) {
	f.Add([]byte{0, 6, 192, 168, 77, 1, 9, 2, 5, 1, 24, 4, 1, 64, 0, 0, 0, 0, 0, 0, 1, 6, 192, 168, 77, 2, 9, 1, 5, 2, 24})
	f.Add([]byte{0, 6, 192, 168, 77, 1, 9, 1, 5, 1, 16})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := reader(data)
		var state State
		for len(r) > 0 && len(state.Nodes) < 50 {
			state.Nodes = append(state.Nodes, r.node())
		}
		opts := Options{Node: "node1", ClusterCIDRs: clusterCIDRs}
		p, err := NewPlan(state, opts)
		if err != nil {
			// By themselves, those that are not refused must make one.
			state.Registered = true
			if p, err := NewPlan(state, opts); err == nil && p.Refused == nil {
				t.Error("refused as a list, but no node of it is")
			}
			return
		}
		if p.Self.Name != "node1" || len(p.Peers) != len(state.Nodes)-1 || p.Table.Peers() != len(p.Peers) {
			t.Fatalf("%d nodes, but self %s and %d peers", len(state.Nodes), p.Self.Name, len(p.Peers))
		}
		for _, n := range state.Nodes {
			claims := []netip.Addr{n.Endpoint.Addr()}
			for _, c := range n.PodCIDRs {
				claims = append(claims, c.Addr(), c.Addr().Next())
			}
			for _, a := range claims {
				if owner, ok := p.Table.Lookup(a); !ok || owner.Name != n.Name {
					t.Errorf("%s is %s's, but the table says %v", a, n.Name, owner)
				}
			}
		}
		for _, a := range p.NodeAddresses {
			if owner, _ := p.Table.Lookup(a); owner != p.Self {
				t.Errorf("node address %s is %v's", a, owner)
			}
		}
	})
}
