package cniplugin

import (
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/rtnetlink"
)

// A guest that knows no flags of routes takes the pod's routes, those without a gateway
// first, as the runtimes of virtual machines copy them.
func TestPodRoutesNeedNoOnlinkFlag(t *testing.T) {
	for name, routes := range map[string][]any{
		"default":    nil,
		"configured": {map[string]any{"dst": "10.0.0.0/8"}, map[string]any{"dst": "fd00::/8"}, map[string]any{"dst": "198.51.100.0/24", "table": 77}},
	} {
		t.Run(name, func(t *testing.T) {
			n, pod := newNode(t, families["dual stack"]...), newNamespace(t)
			result, err := n.add(t, "pod", pod, func(conf map[string]any) { conf["ipam"] = map[string]any{"routes": routes} })
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range result.Routes {
				if r.GW == nil {
					t.Errorf("the result's route to %s has no gateway", &r.Dst)
				}
			}
			var copied []netlink.Route
			pod.in(t, func() error {
				link, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				filter := &netlink.Route{LinkIndex: link.Attrs().Index}
				all, err := rtnetlink.Dump(func() ([]netlink.Route, error) {
					return netlink.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
				})
				for _, r := range all {
					if r.Table != unix.RT_TABLE_LOCAL && r.Protocol != unix.RTPROT_KERNEL {
						copied = append(copied, r)
					}
				}
				return err
			})
			slices.SortStableFunc(copied, func(a, b netlink.Route) int { return len(a.Gw) - len(b.Gw) })
			if want := max(3, len(routes)+1); len(copied) != want {
				t.Fatalf("%d routes, want %d: %v", len(copied), want, copied)
			}
			guest, other := newNamespace(t), newNamespace(t)
			guest.in(t, func() error {
				veth := netlink.NewVeth(netlink.NewLinkAttrs())
				veth.Name, veth.PeerName, veth.PeerNamespace = "eth0", "eth0", netlink.NsFd(int(other.Fd()))
				if err := netlink.LinkAdd(veth); err != nil {
					return err
				}
				for _, addr := range addrsOf(t, result) {
					if err := netlink.AddrAdd(veth, &netlink.Addr{IPNet: rtnetlink.HostNet(addr), Flags: unix.IFA_F_NODAD}); err != nil {
						return err
					}
				}
				if err := netlink.LinkSetUp(veth); err != nil {
					return err
				}
				for _, r := range copied {
					r.Flags, r.LinkIndex = 0, veth.Index
					if err := netlink.RouteAdd(&r); err != nil {
						t.Errorf("%s: %v", r, err)
					}
				}
				return nil
			})
		})
	}
}
