// Package overhead is how much the encapsulations add to packets.
package overhead

import (
	"weft/encap/sealed"
	"weft/encap/vxlan"
	"weft/internal/config"
)

// Of returns by how many bytes an encapsulation makes packets longer.
func Of(e config.Encapsulation, ipv6Underlay bool) int {
	if e == config.EncapsulationSealed {
		return sealed.Overhead(ipv6Underlay)
	}
	return vxlan.Overhead(ipv6Underlay)
}
