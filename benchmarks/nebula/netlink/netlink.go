// Package netlink stands in for github.com/DefinedNet/netlink, a fork that is not available
// everywhere, with the library that it was forked from. Nebula configures its device with it.
package netlink

import "github.com/vishvananda/netlink"

// What Nebula uses.
type (
	Addr                  = netlink.Addr
	Destination           = netlink.Destination
	Link                  = netlink.Link
	Route                 = netlink.Route
	RouteSubscribeOptions = netlink.RouteSubscribeOptions
	RouteUpdate           = netlink.RouteUpdate
	Via                   = netlink.Via
)

// FAMILY_ALL is IPv4 and IPv6.
const FAMILY_ALL = netlink.FAMILY_ALL

// What Nebula calls.
var (
	ErrDumpInterrupted        = netlink.ErrDumpInterrupted
	AddrDel                   = netlink.AddrDel
	AddrList                  = netlink.AddrList
	AddrReplace               = netlink.AddrReplace
	LinkByName                = netlink.LinkByName
	LinkSetIP6AddrGenMode     = netlink.LinkSetIP6AddrGenMode
	RouteDel                  = netlink.RouteDel
	RouteReplace              = netlink.RouteReplace
	RouteSubscribeWithOptions = netlink.RouteSubscribeWithOptions
)
