package cniplugin

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/cniplugin/wiring"
	"weft/internal/nodefile"
	"weft/internal/rtnetlink"
	"weft/ipam"
)

// siege is a node whose plugin is killed or failed over and over. It has addresses for
// two pods, so one that leaks is missed at once. A neighbour holds one of them from
// the beginning to the end, and the pods under attack take turns at the other.
type siege struct {
	*node
	neighbour, pod namespace
	// calm is what the node was before the first attack.
	calm string
	// whole is what an attachment is that nothing disturbed.
	whole string
	// files is how many the calm node has.
	files int
	// struck describes the latest attack, for failures.
	struck string
	// at counts attacks and hits those that struck something.
	at, hits int
}

// maxState is in bytes: far more than two leases take.
const maxState = 64 << 10

func newSiege(t *testing.T) *siege {
	t.Helper()
	s := &siege{node: newNode(t, "10.244.1.0/29", "fd00:244:1::/125"), pod: newNamespace(t), neighbour: newNamespace(t)}
	reserved := []netip.Prefix{netip.MustParsePrefix("10.244.1.4/30"), netip.MustParsePrefix("fd00:244:1::4/126")}
	s.describeNode(func(n *nodefile.Node) { n.Reserved = reserved })
	// A lock that a killed process left behind is to be seen at once.
	s.plugin.lockWait = 10 * time.Second
	s.mustAdd(s.args("neighbour", s.neighbour.Path()))
	first := s.args("first", s.pod.Path())
	s.mustAdd(first)
	s.whole = s.complete(first)
	s.mustDel(first)
	s.files, _ = s.state()
	s.calm = s.look()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the last attack: %s", s.struck)
		}
	})
	return s
}

// errorf fails the test, and says at which system call.
func (s *siege) errorf(format string, args ...any) {
	s.t.Helper()
	s.t.Errorf("%s: %s", s.struck, fmt.Sprintf(format, args...))
}

// mustAdd attaches a pod, undisturbed.
func (s *siege) mustAdd(args *skel.CmdArgs) {
	s.t.Helper()
	if err := s.call(s.plugin.Add, args); err != nil {
		s.errorf("ADD of %s: %v", args.ContainerID, err)
	}
}

// mustDel detaches a pod, undisturbed.
func (s *siege) mustDel(args *skel.CmdArgs) {
	s.t.Helper()
	if err := s.call(s.plugin.Del, args); err != nil {
		s.errorf("DEL of %s: %v", args.ContainerID, err)
	}
}

// attack traces one operation on a fresh pod, and remembers what struck it. It returns
// nil when judge let every call happen.
func (s *siege) attack(command string, args *skel.CmdArgs, judge func(*call) verdict) *ending {
	s.t.Helper()
	s.struck = command + " of " + args.ContainerID
	end := s.trace(s.t, command, args, judge)
	if end.struck == "" {
		if failure, err := end.failure(); failure != nil || err != nil {
			s.errorf("undisturbed: %v, %v", failure, err)
		}
		return nil
	}
	s.struck += " at " + end.struck
	s.hits++
	return end
}

// requireCalm demands that nothing is left but the neighbour, and that it is as it was.
func (s *siege) requireCalm() {
	s.t.Helper()
	if now := s.look(); now != s.calm {
		s.errorf("left (-before the attacks, +now):\n%s", cmp.Diff(s.calm, now))
	}
	// One temporary file may lie about until the next change of a lease.
	if files, bytes := s.state(); files > s.files+1 || bytes > maxState {
		s.errorf("%d files of %d bytes are below %s, there were %d", files, bytes, s.stateDir, s.files)
	}
}

// look describes the leases, the node's side of all pods, and both pods.
func (s *siege) look() string {
	s.t.Helper()
	var out strings.Builder
	leases := s.leases()
	slices.SortFunc(leases, func(a, b ipam.Lease) int { return strings.Compare(a.ContainerID, b.ContainerID) })
	for _, lease := range leases {
		fmt.Fprintf(&out, "lease %v\n", lease)
	}
	for _, name := range s.podLinks() {
		fmt.Fprintf(&out, "host side %s:\n", name)
		s.describe(&out, s.namespace, name)
	}
	for _, pod := range []namespace{s.neighbour, s.pod} {
		fmt.Fprintln(&out, "in the pod:")
		s.describe(&out, pod, "eth0")
	}
	return out.String()
}

// complete describes an attachment without what differs between two of them, but for
// the names and addresses of the links themselves.
func (s *siege) complete(args *skel.CmdArgs) string {
	s.t.Helper()
	var out strings.Builder
	name := wiring.HostName(ipam.Attachment{ContainerID: args.ContainerID, IfName: args.IfName})
	s.describe(&out, s.namespace, name)
	s.describe(&out, s.pod, args.IfName)
	text := strings.ReplaceAll(out.String(), args.ContainerID, "CONTAINER")
	return strings.ReplaceAll(text, name, "HOST")
}

// describe writes all that ADD sets on a link, and nothing if there is no such link.
func (s *siege) describe(out *strings.Builder, in namespace, name string) {
	s.t.Helper()
	in.in(s.t, func() error {
		link, err := netlink.LinkByName(name)
		if _, notFound := errors.AsType[netlink.LinkNotFoundError](err); notFound {
			return nil
		}
		if err != nil {
			return err
		}
		attrs := link.Attrs()
		fmt.Fprintf(out, " alias %q, MTU %d, group %d, %s\n", attrs.Alias, attrs.MTU, attrs.Group, attrs.Flags)
		addrs, addrErr := rtnetlink.Dump(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) })
		routes, routeErr := rtnetlink.Dump(func() ([]netlink.Route, error) { return netlink.RouteList(link, netlink.FAMILY_ALL) })
		neighbours, neighErr := rtnetlink.Dump(func() ([]netlink.Neigh, error) { return netlink.NeighList(attrs.Index, netlink.FAMILY_ALL) })
		var lines []string
		for _, a := range addrs {
			// Those that the kernel makes of the MAC address come when they please.
			if a.IP.To4() != nil || !a.IP.IsLinkLocalUnicast() || a.IP.Equal(wiring.GatewayOf(netip.IPv6Unspecified()).AsSlice()) {
				lines = append(lines, fmt.Sprintf(" address %s, scope %d", a.IPNet, a.Scope))
			}
		}
		for _, r := range routes {
			if !r.Dst.IP.IsLinkLocalUnicast() && !r.Dst.IP.IsMulticast() {
				lines = append(lines, fmt.Sprintf(" route %s by %s from %s, scope %d, protocol %d", r.Dst, r.Gw, r.Src, r.Scope, r.Protocol))
			}
		}
		for _, n := range neighbours {
			if n.State == netlink.NUD_PERMANENT {
				lines = append(lines, fmt.Sprintf(" neighbour %s", n.IP))
			}
		}
		for _, setting := range []string{
			"ipv4/conf/%s/forwarding", "ipv4/conf/%s/rp_filter",
			"ipv6/conf/%s/forwarding", "ipv6/conf/%s/accept_ra", "ipv6/conf/%s/disable_ipv6",
		} {
			path := filepath.Join("/proc/sys/net", fmt.Sprintf(setting, name))
			value, err := os.ReadFile(path)
			lines = append(lines, fmt.Sprintf(" %s = %s %v", fmt.Sprintf(setting, name), strings.TrimSpace(string(value)), err))
		}
		slices.Sort(lines)
		fmt.Fprintln(out, strings.Join(lines, "\n"))
		return errors.Join(addrErr, routeErr, neighErr)
	})
}

// state counts the files below the state directory, and their bytes.
func (s *siege) state() (files int, bytes int64) {
	s.t.Helper()
	err := filepath.WalkDir(s.stateDir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			files++
			bytes += info.Size()
		}
		return err
	})
	if err != nil {
		s.t.Error(err)
	}
	return files, bytes
}

// requireAttached demands that the pod has what its lease says, and that it works.
func (s *siege) requireAttached(args *skel.CmdArgs, pod namespace) {
	s.t.Helper()
	leases := s.leases()
	at := slices.IndexFunc(leases, func(l ipam.Lease) bool { return l.ContainerID == args.ContainerID })
	if at < 0 || len(leases) != 2 {
		s.errorf("attached, but the leases are %v", leases)
		return
	}
	requireSameAddrs(s.t, pod.addrs(s.t, "eth0"), leases[at].Addresses)
	s.awaitReady(leases[at], pod)
	for _, addr := range leases[at].Addresses {
		if from := dial(s.t, s.neighbour, pod, addr); !slices.Contains(s.neighbour.addrs(s.t, "eth0"), from) {
			s.errorf("the neighbour is seen as %s", from)
		}
	}
}

// awaitReady waits until nothing is lacking: a packet that comes too early is
// lost, and a TCP connection that is begun with it takes a second.
func (s *siege) awaitReady(lease ipam.Lease, pod namespace) {
	s.t.Helper()
	lacking := s.lacking(lease, pod)
	for deadline := time.Now().Add(time.Minute); lacking != "" && time.Now().Before(deadline); lacking = s.lacking(lease, pod) {
		time.Sleep(time.Millisecond)
	}
	if lacking != "" {
		s.errorf("still %s", lacking)
	}
}

// lacking returns what the kernel has yet to do until the pod's packets pass, "" if nothing.
// It does some things a little after ADD asked for them: it sends through the host side
// when it has noticed the carrier (net/core/link_watch.c), and takes packets for an IPv6
// address when a worker has added its local route (addrconf_dad_work in net/ipv6/addrconf.c),
// even if there is no duplicate address detection.
func (n *node) lacking(lease ipam.Lease, pod namespace) (what string) {
	n.t.Helper()
	n.in(n.t, func() error {
		link, err := netlink.LinkByName(wiring.HostName(lease.Attachment))
		if err == nil && link.Attrs().OperState != netlink.OperUp {
			what = "the host side is " + link.Attrs().OperState.String()
		}
		return err
	})
	pod.in(n.t, func() error {
		for _, addr := range lease.Addresses {
			routes, err := netlink.RouteGet(addr.AsSlice())
			if err != nil || len(routes) == 0 || routes[0].Type != unix.RTN_LOCAL {
				what = fmt.Sprintf("the pod does not know its own address with %d bits (%v)", addr.BitLen(), err)
			}
		}
		return nil
	})
	return what
}

// noEth0 reports whether the pod has no such interface.
func noEth0(t *testing.T, pod namespace) (absent bool) {
	t.Helper()
	pod.in(t, func() error {
		_, err := netlink.LinkByName("eth0")
		if _, notFound := errors.AsType[netlink.LinkNotFoundError](err); notFound {
			absent, err = true, nil
		}
		return err
	})
	return absent
}
