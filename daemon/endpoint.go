package daemon

import (
	"net"
	"net/netip"
	"slices"

	"weft/encap"
)

// sendFrom has datagrams leave from the endpoint's address, since peers know this node by
// it. Where no interface has it, as behind a NAT, the kernel chooses.
func sendFrom(conns []*encap.Conn, endpoint netip.Addr) {
	addrs, err := net.InterfaceAddrs()
	local := slices.ContainsFunc(addrs, func(a net.Addr) bool {
		prefix, ok := a.(*net.IPNet)
		return ok && prefix.IP.Equal(endpoint.AsSlice())
	})
	if err != nil || !local {
		endpoint = netip.Addr{}
	}
	for _, c := range conns {
		c.SendFrom(endpoint)
	}
}
