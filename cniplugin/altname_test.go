package cniplugin

import (
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

// altNames returns the alternative names of all pods' veths.
func (n *node) altNames() (names []string) {
	n.t.Helper()
	n.in(n.t, func() error {
		for _, name := range n.podLinks() {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			names = append(names, link.Attrs().AltNames...)
		}
		return nil
	})
	return names
}

// Pods that a former release attached get another alternative name, and no other program's
// name is touched.
func TestOldAltNamesAreReplaced(t *testing.T) {
	n, pod := newNode(t, families["dual stack"]...), newNamespace(t)
	args := n.args("pod", pod.Path())
	args.Args = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=ve-x"
	if err := n.call(n.plugin.Add, args); err != nil {
		t.Fatal(err)
	}
	if got := n.altNames(); !slices.Equal(got, []string{"weft-ve-x.default"}) {
		t.Errorf("after ADD: %q", got)
	}
	n.in(t, func() error {
		link, err := netlink.LinkByName(n.podLinks()[0])
		if err != nil {
			return err
		}
		for _, err := range []error{
			netlink.LinkDelAltName(link, "weft-ve-x.default"), netlink.LinkAddAltName(link, "ve-x.default"), netlink.LinkAddAltName(link, "another"),
		} {
			if err != nil {
				return err
			}
		}
		return nil
	})
	for range 2 {
		expect(t, n.reconcile())
		got := n.altNames()
		slices.Sort(got)
		if !slices.Equal(got, []string{"another", "weft-ve-x.default"}) {
			t.Errorf("after a reconcile: %q", got)
		}
	}
}
