// Package vxlantest makes VXLAN datagrams for tests.
package vxlantest

import (
	"weft/encap"
	"weft/encap/vxlan"
	"weft/packet"
	"weft/peer"
)

// Datagram returns the UDP payload in which one node sends an IP packet to another, in
// the VXLAN network 1.
func Datagram(ip []byte, from, to *peer.Peer) []byte {
	f := packet.NewFrames(1, len(ip))[0]
	f.Fill(copy(f.Reset(), ip))
	var out encap.Batch
	vxlan.New(1).Encode(&out, &f, from, to)
	for _, datagram := range out.Datagrams() {
		return datagram
	}
	return nil
}
