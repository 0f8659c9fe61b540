package hostnet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"sigs.k8s.io/knftables"

	"weft/internal/marks"
	"weft/internal/nftable"
)

// bridgeTable is weft's nftables table of the family bridge. It drops nothing: it marks the
// frames that are not the overlay's, for the guard table.
//
// Where the kernel has br_netfilter, a frame that a bridge forwards from port to port passes
// the hooks of the family inet as if it were routed. VMs and containers on such a bridge may
// use the cluster's own addresses among themselves. Only hooks of the family bridge can
// recognise such a frame, so they mark it:
//
//   - prerouting comes before the guard's. Here it is only known whether a frame is for the
//     MAC address of another host. No bridge hands such a frame to IP, except as a broadcast,
//     to a device upon the bridge, or when another program translates its destination. So the
//     guard's prerouting lets it pass, and from_bridge catches those exceptions: it judges all
//     that comes out of a bridge and isn't marked.
//   - input has what the bridge hands to this node. It takes the mark away.
//   - forward has what the bridge forwards, and nothing else.
//
// A frame that is not marked is judged as a routed packet: without this table, or where
// another program overwrites marks, bridged frames are dropped rather than let through.
type bridgeTable struct {
	table
	lacks bool // the kernel has none

	// mask is what the table was last made for, and made are its contents then; nil says that
	// it is not known to stand.
	mask marks.Mask
	made nftable.Contents
}

func newBridgeTable() bridgeTable {
	return bridgeTable{table: table{family: knftables.BridgeFamily, name: marks.Table}}
}

var errNoBridgeFamily = errors.New("the kernel has no nftables for bridges (CONFIG_NF_TABLES_BRIDGE)")

// A hook of br_netfilter has the priority 0 (NF_BR_PRI_BRNF).
const beforeBridgeNetfilter knftables.BaseChainPriority = "-10"

var bridgeChains = []chain{
	{"prerouting", knftables.FilterType, knftables.PreroutingHook, beforeBridgeNetfilter},
	{"input", knftables.FilterType, knftables.InputHook, beforeBridgeNetfilter},
	{"forward", knftables.FilterType, knftables.ForwardHook, beforeBridgeNetfilter},
}

func bridgeRules(mask marks.Mask) []guardRule {
	set := fmt.Sprintf("meta mark set meta mark | %#x", mask.Bridged())
	unset := hasMark(mask, mask.Bridged()) + fmt.Sprintf(" meta mark set meta mark & %#x", ^mask.Bridged())
	return []guardRule{
		{"prerouting", "meta pkttype != host ether type { ip, ip6 } " + set + " accept", "to other hosts; VLAN tags may lead to a device upon the bridge"},
		{"prerouting", unset, "from another bridge, through a veth pair of this node"},
		{"input", unset, "handed to this node after all"},
		{"forward", set, "from port to port"},
	}
}

func bridgeIdentity(mask marks.Mask) nftable.Identity {
	return identityOf(bridgeRules(mask), bridgeChains)
}

// bridgeRuleset returns the transaction that replaces the table. A frame that it meets
// between the old rules and the new ones isn't marked, and may be dropped.
func bridgeRuleset(tx *knftables.Transaction, mask marks.Mask) *knftables.Transaction {
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	tx.Add(&knftables.Table{Comment: new(bridgeIdentity(mask).Comment)})
	for _, c := range bridgeChains {
		tx.Add(c.object())
	}
	for _, r := range bridgeRules(mask) {
		tx.Add(&knftables.Rule{Chain: r.chain, Rule: r.rule, Comment: new(r.why)})
	}
	return tx
}

// apply makes the table stand, and reports whether it had to be made. Untouched is as in
// guard.apply.
func (b *bridgeTable) apply(ctx context.Context, mask marks.Mask, untouched bool) (replaced bool, err error) {
	known := b.made != nil && b.mask == mask
	if known && untouched {
		return false, nil
	}
	if id, err := b.identity(); err == nil && id == bridgeIdentity(mask) {
		contents := b.contents()
		if !known { // a weftd of before has made it
			b.mask, b.made = mask, contents
		}
		if maps.Equal(b.made, contents) {
			return false, nil
		}
	}
	b.mask, b.made = mask, nil
	if err := b.open(); err != nil {
		return false, err
	}
	b.made, err = b.commit(ctx, bridgeRuleset(b.nft.NewTransaction(), mask), bridgeIdentity(mask))
	return err == nil, err
}

func (b *bridgeTable) open() error {
	if b.lacks {
		return errNoBridgeFamily
	}
	err := b.table.open()
	if err != nil && strings.Contains(strings.ToLower(err.Error()), "not supported") { // EOPNOTSUPP, or EAFNOSUPPORT
		b.lacks = true
		return errNoBridgeFamily
	}
	return err
}

func (b *bridgeTable) remove(ctx context.Context) error {
	b.made = nil
	return b.table.remove(ctx)
}
