package config

import (
	"fmt"
	"net/netip"
	"slices"

	"weft/internal/strict"
)

// checkMTU refuses one that is too small for one of the cluster's families.
func checkMTU(c *Config, written map[string]setting, problems *strict.Problems) {
	const least = 1280
	ipv6 := slices.IndexFunc(c.ClusterCIDRs, func(p netip.Prefix) bool { return p.Addr().Is6() })
	if ipv6 >= 0 && c.TUN.MTU > 0 && c.TUN.MTU < least {
		problems.Addf(origin(written, "tun.mtu"), "tun.mtu", "%d is too small for IPv6, which needs %d (RFC 8200 section 5); write a larger one, or leave %s out of clusterCIDRs", c.TUN.MTU, least, c.ClusterCIDRs[ipv6])
	}
}

func setGSO(c *Config, text string) error {
	c.UDP.GSO = GSO(text)
	switch c.UDP.GSO {
	case GSOAuto, GSOOn, GSOOff:
		return nil
	}
	return fmt.Errorf("%s is none of the choices; write %s, %s or %s", strict.Quote(text), GSOAuto, GSOOn, GSOOff)
}
