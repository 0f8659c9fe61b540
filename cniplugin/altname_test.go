package cniplugin

import (
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"weft/ipam"
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

// Whatever a pod is called, no link on the host is called that: others on the host match
// links by name.
func TestAltNamesBeginWithWeft(t *testing.T) {
	for _, tt := range []struct{ ifName, pod, want string }{
		{"eth0", "shop/web-0", "weft-web-0.shop"},
		{"net1", "shop/web-0", "weft-net1.web-0.shop"},
		{"eth0", "default/ve-x", "weft-ve-x.default"},
		{"eth0", "default/en-x", "weft-en-x.default"},
		{"eth0", "n/" + strings.Repeat("p", 253), "weft-" + strings.Repeat("p", maxAltName-5)},
		{"eth0", "", ""},
	} {
		w := newWiring(&request{attachment: ipam.Attachment{ContainerID: "c", IfName: tt.ifName}, pod: tt.pod}, nil)
		if w.altName != tt.want {
			t.Errorf("%s of %s: %q, want %q", tt.ifName, tt.pod, w.altName, tt.want)
		}
	}
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
