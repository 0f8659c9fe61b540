package config

import (
	"fmt"
	"regexp"

	"weft/internal/family"
	"weft/internal/strict"
)

func setEncapsulation(c *Config, text string) error {
	c.Encapsulation = Encapsulation(text)
	switch c.Encapsulation {
	case EncapsulationSealed, EncapsulationVXLAN:
		return nil
	}
	return fmt.Errorf("unknown encapsulation %s; write %s, or %s if packets may cross the underlay unencrypted",
		strict.Quote(text), EncapsulationSealed, EncapsulationVXLAN)
}

func setDriver(c *Config, text string) error {
	c.TUN.Driver = Driver(text)
	switch c.TUN.Driver {
	case DriverSuperpacket, DriverWireGuard, DriverWater:
		return nil
	}
	return fmt.Errorf("unknown driver %s; write %s, %s or %s", strict.Quote(text), DriverSuperpacket, DriverWireGuard, DriverWater)
}

// linkName is narrower than dev_valid_name in the kernel's net/core/dev.c: such a
// name needs no quoting in sysctl paths, nftables rules or shells.
var linkName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$`)

func setTUNName(c *Config, text string) error {
	c.TUN.Name = text
	// Under these two names, sysctl keeps the settings of all devices.
	if !linkName.MatchString(text) || text == "all" || text == "default" {
		return fmt.Errorf("%s is not a valid device name; write at most 15 letters, digits, '_', '.' and '-', such as weft0", strict.Quote(text))
	}
	return nil
}

func setMTU(c *Config, text string) error {
	if text == "0" {
		c.TUN.MTU = 0
		return nil
	}
	// Every IPv4 host takes as much (RFC 1122 section 3.3.2).
	if err := setNumber(&c.TUN.MTU, text, 576, 65000); err != nil {
		return fmt.Errorf("%w, or 0 for the underlay's MTU less the overhead", err)
	}
	return nil
}

// checkMTU refuses one that is too small for one of the cluster's families.
func checkMTU(c *Config, written map[string]setting, problems *strict.Problems) {
	ipv6 := family.IPv6.Prefixes(c.ClusterCIDRs)
	if len(ipv6) > 0 && c.TUN.MTU > 0 && c.TUN.MTU < family.LeastMTU6 {
		problems.Addf(origin(written, "tun.mtu"), "tun.mtu", "%d is too small for IPv6, which needs %d (RFC 8200 section 5); write a larger one, or remove %s from clusterCIDRs", c.TUN.MTU, family.LeastMTU6, ipv6[0])
	}
}

func setGSO(c *Config, text string) error {
	c.UDP.GSO = GSO(text)
	switch c.UDP.GSO {
	case GSOAuto, GSOOn, GSOOff:
		return nil
	}
	return fmt.Errorf("%s is not a valid value; write %s, %s or %s", strict.Quote(text), GSOAuto, GSOOn, GSOOff)
}

func setEchoPort(c *Config, text string) error {
	port := 0
	if err := setNumber(&port, text, 0, 65535); err != nil {
		return err
	}
	c.Echo.Port = uint16(port)
	return nil
}
