package setup

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"weft/control"
	"weft/internal/family"
	"weft/internal/hostnet"
)

// candidates are the cluster CIDRs that are tried one after the other: what most clusters have, its
// neighbours, and some far from these, for hosts with a route to all of 10.0.0.0/8. None is usual for
// home networks, for containers' own networks or for Services.
func candidates() (all []netip.Prefix) {
	for second := byte(244); second <= 254; second++ {
		all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, second, 0, 0}), 16))
	}
	for second := byte(24); second <= 31; second++ {
		all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, second, 0, 0}), 16))
	}
	return all
}

// clusterCIDR returns the first candidate to which no route of this host leads, but for its default
// routes.
func clusterCIDR() (netip.Prefix, error) {
	taken, err := hostnet.Destinations()
	if err != nil {
		return netip.Prefix{}, err
	}
	all := candidates()
	for _, p := range all {
		if !slices.ContainsFunc(taken, p.Overlaps) {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("choose the cluster CIDR: routes of this host lead to all from %s to %s; give one with --cluster-cidrs", all[0], all[len(all)-1])
}

// usual is how long a node's pod CIDR is, by family, where the list of nodes shows no other.
var usual = map[family.Family]int{family.IPv4: 24, family.IPv6: 64}

// podCIDRs returns pod CIDRs that none of the nodes has, one of each family of the cluster CIDRs, as
// long as the nodes'.
func podCIDRs(nodes []control.Node, clusterCIDRs []netip.Prefix) (free []netip.Prefix, err error) {
	var claims bart.Table[struct{}]
	lengths := map[family.Family]int{}
	for _, n := range nodes {
		for _, p := range n.PodCIDRs {
			claims.Insert(p, struct{}{})
			if f := family.Of(p.Addr()); lengths[f] == 0 {
				lengths[f] = p.Bits()
			}
		}
	}
	for _, f := range family.All {
		within := f.Prefixes(clusterCIDRs)
		if len(within) == 0 {
			continue
		}
		length := lengths[f]
		if length == 0 {
			length = usual[f]
		}
		p, ok := firstFree(&claims, within, length)
		if !ok {
			err = errors.Join(err, fmt.Errorf("no pod CIDR with /%d is free in %s; give this node's with --pod-cidrs, or remove nodes that are gone from the list", length, control.Join(within)))
		}
		free = append(free, p)
	}
	return free, err
}

func firstFree(claims *bart.Table[struct{}], clusterCIDRs []netip.Prefix, length int) (netip.Prefix, bool) {
	for _, cluster := range clusterCIDRs {
		if cluster.Bits() > length {
			continue
		}
		if p, ok := control.FreeFrom(claims, cluster.Addr(), cluster, length); ok {
			return p, true
		}
	}
	return netip.Prefix{}, false
}
