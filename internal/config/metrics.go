package config

import (
	"fmt"
	"net/netip"

	"weft/internal/strict"
)

// Metrics says where weftd is observed.
type Metrics struct {
	// Listen is invalid (the zero AddrPort) if metrics are off.
	Listen netip.AddrPort

	// Peers is how many peers have metrics of their own: where there are more, none has.
	Peers int

	// Page says whether Listen serves the status page too.
	Page Page
}

// Page says whether the status page is served.
type Page string

// The values of Metrics.Page: with PageAuto it is where only users of this host reach it.
const (
	PageAuto Page = "auto"
	PageOn   Page = "on"
	PageOff  Page = "off"
)

// ServesPage says whether weftd serves the status page.
func (m Metrics) ServesPage() bool {
	return m.Page == PageOn || m.Page == PageAuto && m.Listen.Addr().IsLoopback()
}

func setMetricsListen(c *Config, text string) error {
	if text == "" {
		c.Metrics.Listen = netip.AddrPort{}
		return nil
	}
	if err := setAddrPort(&c.Metrics.Listen, text); err != nil {
		return fmt.Errorf("%w, or an empty string (\"\") for no metrics", err)
	}
	return nil
}

func setPage(c *Config, text string) error {
	c.Metrics.Page = Page(text)
	switch c.Metrics.Page {
	case PageAuto, PageOn, PageOff:
		return nil
	}
	return fmt.Errorf("%s is not a valid value; write %s, %s or %s", strict.Quote(text), PageAuto, PageOn, PageOff)
}
