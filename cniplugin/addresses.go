package cniplugin

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"

	"weft/internal/nodefile"
	"weft/ipam"
)

// NodePool is the addresses of a node's pods.
func NodePool(node nodefile.Node) ipam.Pool {
	pool := ipam.Pool{
		Ranges:   node.PodCIDRs,
		Reserved: slices.Clone(node.Reserved),
		Cooldown: time.Duration(node.CooldownSeconds) * time.Second,
	}
	for _, addr := range node.Addresses {
		pool.Reserved = append(pool.Reserved, netip.PrefixFrom(addr, addr.BitLen()))
	}
	return pool
}

// endLease gives back what an attachment held whose veth was removed.
func endLease(ctx context.Context, store *ipam.Store, a ipam.Attachment, was removed) error {
	end := store.Release
	if was == incompleteVeth {
		end = store.Cancel
	}
	_, _, err := end(ctx, a)
	return err
}

func addrOf(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}
