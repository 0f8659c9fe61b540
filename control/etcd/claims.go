package etcd

import (
	"cmp"
	"crypto/sha256"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"weft/control"
	"weft/internal/strict"
)

// standing are the claims that are right: CIDR → name of the node.
type standing struct{ bart.Table[string] }

// standing returns those claims that lie in the cluster CIDRs and overlap none that was
// written before.
func (l *listing) standing() *standing {
	if l.stands != nil {
		return l.stands
	}
	type owned struct {
		claim
		name string
	}
	var all []owned
	for _, claims := range l.claims {
		for name, c := range claims {
			if c.err == nil && strict.Within(c.cidr, l.options.ClusterCIDRs) {
				all = append(all, owned{c, name})
			}
		}
	}
	slices.SortFunc(all, func(a, b owned) int {
		return cmp.Or(cmp.Compare(a.revision, b.revision), cmp.Compare(a.name, b.name))
	})
	s := new(standing)
	for _, c := range all {
		if !s.OverlapsPrefix(c.cidr) {
			s.Insert(c.cidr, c.name)
		}
	}
	l.stands = s
	return s
}

// free returns a CIDR of the given length, out of the first of the cluster CIDRs that has
// room, that overlaps no standing claim. Where the search begins depends on the name, so
// that nodes which start together seldom choose the same.
func (s *standing) free(clusterCIDRs []netip.Prefix, length int, name string) (netip.Prefix, bool) {
	hash := sha256.Sum256([]byte(name))
	for _, cluster := range clusterCIDRs {
		if cluster.Bits() > length {
			continue
		}
		start := cluster.Addr().AsSlice()
		for bit := cluster.Bits(); bit < length; bit++ {
			start[bit/8] |= hash[bit/8] & (0x80 >> (bit % 8))
		}
		chosen, _ := netip.AddrFromSlice(start)
		for _, first := range []netip.Addr{chosen, cluster.Addr()} {
			if p, ok := control.FreeFrom(&s.Table, first, cluster, length); ok {
				return p, true
			}
		}
	}
	return netip.Prefix{}, false
}
