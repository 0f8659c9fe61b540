package leases

import (
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"

	"weft/cniplugin/wiring"
	"weft/internal/marks"
)

// A veth without an alias, which nothing says the attachment of, is left to the operator; one
// that went away since it was found needs none.
func TestVethWithoutAliasIsNamed(t *testing.T) {
	node, err := ns.TempNetNS()
	if err != nil {
		t.Fatalf("make a network namespace (run as root): %v", err)
	}
	defer node.Close()
	err = node.Do(func(ns.NetNS) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Group = "weft0123456789a", marks.PodLinkGroup
		veth := netlink.NewVeth(attrs)
		veth.PeerName = "eth0"
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		k, err := wiring.OpenHost()
		if err != nil {
			return err
		}
		defer k.Close()
		found, _, err := survey(nil, k)
		if err != nil || len(found) != 1 {
			t.Fatalf("found %v, %v", found, err)
		}
		if change, err := repair(t.Context(), nil, k, found[0]); change.Action != Kept || err != nil {
			t.Errorf("got %v, %v", change, err)
		}
		if _, err := k.Remove(attrs.Name); err != nil {
			return err
		}
		if change, err := repair(t.Context(), nil, k, found[0]); change.Action != "" || err != nil {
			t.Errorf("removed since: got %v, %v", change, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
