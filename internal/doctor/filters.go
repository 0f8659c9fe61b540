package doctor

import (
	"context"
	"errors"
	"slices"
	"strings"

	"weft/cniplugin/wiring"
	"weft/internal/hostcheck"
	"weft/internal/hostnet"
	"weft/internal/marks"
	"weft/internal/nftable"
	"weft/internal/nodefile"
	"weft/internal/warning"
)

// obstaclesOf returns those of one code.
func (h *host) obstaclesOf(code string) []warning.Warning {
	return slices.DeleteFunc(slices.Clone(h.obstacles()), func(w warning.Warning) bool { return w.Code != code })
}

func checkForwardFilters(_ context.Context, h *host) []Finding {
	return h.filters(hostcheck.CodeForward, "no filter of another program drops what pods send or receive")
}

func checkInputFilters(_ context.Context, h *host) []Finding {
	return h.filters(hostcheck.CodeInput, "no filter of another program drops nodes' datagrams, or pods' packets to this node")
}

func (h *host) filters(code, right string) []Finding {
	found := h.obstaclesOf(code)
	if unreadable := h.obstaclesOf(hostcheck.CodeUnreadable); len(unreadable) > 0 && len(found) == 0 {
		return orOK(Warning, unreadable, "")
	}
	return orOK(Failed, found, "%s", right)
}

func checkRoutingRules(_ context.Context, h *host) []Finding {
	return orOK(Failed, h.obstaclesOf(hostcheck.CodeRule), "no other program's routing rule diverts packets to pods")
}

// checkGuard compares the guard table with the one that weftd described to weft-cni.
func checkGuard(_ context.Context, h *host) []Finding {
	id, err := nftable.Of(nftable.Inet, marks.Table)
	switch {
	case errors.Is(h.nodeErr, nodefile.ErrAbsent) && !h.running:
		if err == nil {
			return ok("the guard table exists (%d rules); weftd has added no pod since the host booted", id.Rules)
		}
		return skipped("weftd has not run since the host booted")
	case errors.Is(h.nodeErr, nodefile.ErrAbsent) && err != nil:
		return of(Failed, "the guard table is not in place: "+err.Error()+"; look at weftd's log (journalctl -u weftd)")
	case errors.Is(h.nodeErr, nodefile.ErrAbsent):
		return ok("the guard table exists (%d rules)", id.Rules)
	}
	if _, err := wiring.ReadGuarded(h.Config.RunDir); err != nil {
		text := err.Error() // in which the table's comment has semicolons too
		remedy := max(strings.LastIndex(text, "; "), 0)
		return fail(text[:remedy], strings.TrimPrefix(text[remedy:], "; "))
	}
	return ok("the guard table is the one that weftd made (%d rules)", id.Rules)
}

// checkBridges looks whether bridges' frames pass the packet filters without weft's mark.
func checkBridges(_ context.Context, h *host) []Finding {
	var on []string
	for _, name := range []string{"net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"} {
		if value, err := hostnet.ReadSysctl(name); err == nil && value == "1" {
			on = append(on, name+"=0")
		}
	}
	if len(on) == 0 {
		return ok("bridges' frames don't pass the packet filters")
	}
	remedy := "weft doesn't need this; if the bridge's ports use the cluster CIDRs, set " + strings.Join(on, " and ")
	if vlan, err := hostnet.ReadSysctl("net.bridge.bridge-nf-filter-vlan-tagged"); err == nil && vlan == "1" {
		return warn("bridged frames with VLAN tags count as routed (net.bridge.bridge-nf-filter-vlan-tagged is 1), so the guard table may drop them", remedy)
	}
	if _, err := nftable.Of(nftable.Bridge, marks.Table); err != nil && h.began() {
		return warn("bridged frames count as routed, and the guard table may drop them: "+err.Error(), remedy)
	}
	return ok("bridges' frames pass the packet filters, and weft's bridge table marks them")
}
