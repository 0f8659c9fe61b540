package encap

import (
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// source is the address that datagrams leave from, as control messages say it
// (IP_PKTINFO, IPV6_PKTINFO).
type source struct {
	addr    netip.Addr
	control []byte
}

// maxSource is the length in bytes of the longest such control message, with padding.
const maxSource = 40

func newSource(addr netip.Addr) *source {
	if addr.Is4() {
		return &source{addr, (&ipv4.ControlMessage{Src: addr.AsSlice()}).Marshal()}
	}
	return &source{addr, (&ipv6.ControlMessage{Src: addr.AsSlice()}).Marshal()}
}

// SendFrom has what is sent to peers of the address' family leave from addr, which an
// interface must have. With the zero Addr, and for the other family, the kernel chooses:
// of several addresses that a host has, it may take another one than the peers expect. It
// may be called at any time, and does nothing where the lanes listen at one address only,
// from which they send too.
func (c *Conn) SendFrom(addr netip.Addr) {
	if !c.local.Addr().IsUnspecified() {
		return
	}
	switch now := c.source.Load(); {
	case !addr.IsValid():
		c.source.Store(nil)
	case now == nil || now.addr != addr:
		c.source.Store(newSource(addr))
	}
}
