// Package marks holds the names and numbers under which weft's own objects are
// found again in the kernel. Whatever carries one of them is weft's to change or
// to remove; whatever does not is never touched.
package marks

const (
	// RouteProtocol marks the routes and rules that weftd installs (rtnetlink(7),
	// rtm_protocol). weftd sweeps what carries it and is no longer wanted.
	RouteProtocol = 93

	// PodRouteProtocol marks the routes to local pods, which weft-cni installs and
	// which outlive weftd.
	PodRouteProtocol = 94

	// PodLinkGroup is the link group of the host side of every pod's veth
	// (IFLA_GROUP). The guard table tells pods by it.
	PodLinkGroup = 93

	// RouteTable holds the routes to the peers' node addresses, which only pods use.
	RouteTable = 9338

	// RulePriority is the priority of the rules that send pods' packets through
	// RouteTable: behind the local table (0), before the main table (32766).
	RulePriority = 9338

	// Table is the name of the nftables table (family inet).
	Table = "weft"
)
