package daemon

import (
	"fmt"

	"weft/encap"
	"weft/internal/config"
	"weft/internal/warning"
)

// Joins returns whether received packets are joined for the TUN device.
func (d *daemon) Joins() (tcp, udp bool) {
	if p := d.path.Load(); p != nil {
		tcp, udp = p.router.Joins()
	}
	return tcp, udp
}

// offloadWarnings says what makes forwarding slower because the kernel does not do it.
func (d *daemon) offloadWarnings() []warning.Warning {
	p := d.path.Load()
	if p == nil {
		return nil
	}
	var all []warning.Warning
	tcp, udp := p.router.RefusedJoins()
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
	if w, ok := d.runsWarning(); ok {
		all = append(all, w)
	}
	return all
}

// runsWarning says why datagrams are sent one by one, unless that is configured.
func (d *daemon) runsWarning() (warning.Warning, bool) {
	if runs, _ := d.UDP(); runs || d.config.UDP.GSO == config.GSOOff {
		return warning.Warning{}, false
	}
	text := "the kernel or the card refuses several datagrams in one message (UDP GSO), so weftd sends each one alone; ethtool -k DEVICE shows whether tx-udp-segmentation or tx-checksumming is off"
	if why := encap.LossyKernel(); why != "" && d.config.UDP.GSO == config.GSOAuto {
		text = fmt.Sprintf("%s loses datagrams that are sent in one message (UDP GSO), so weftd sends each one alone; use another kernel, or write udp.gso: on if yours is repaired", why)
	}
	return warning.Warning{Code: "udp_gso", Text: text}, true
}
