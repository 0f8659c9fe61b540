package main

import (
	"fmt"

	"weft/internal/warning"
)

// Joins returns whether received packets are joined for the TUN device.
func (d *daemon) Joins() (tcp, udp bool) { return d.router.Joins() }

// offloadWarnings says what makes forwarding slower because the kernel does not do it.
func (d *daemon) offloadWarnings() []warning.Warning {
	var all []warning.Warning
	tcp, udp := d.router.RefusedJoins()
	for _, kind := range []struct {
		name    string
		refused bool
	}{{"TCP", tcp}, {"UDP", udp}} {
		if kind.refused {
			all = append(all, warning.Warning{Code: "tun_joins", Text: fmt.Sprintf(
				"the kernel refuses joined packets of %s from the TUN device %s, so weftd writes each one alone; a newer kernel makes this node faster",
				kind.name, d.config.TUN.Name)})
		}
	}
	return all
}
