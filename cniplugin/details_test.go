package cniplugin

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/rtnetlink"
)

// set writes settings that are named as their paths below /proc/sys/net.
func (n namespace) set(t *testing.T, settings map[string]string) {
	t.Helper()
	n.in(t, func() error {
		for name, value := range settings {
			if err := os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0); err != nil {
				return err
			}
		}
		return nil
	})
}

// addTo attaches a pod as dual as its node is, and returns its addresses.
func (n *node) addTo(t *testing.T, containerID string, pod namespace, change func(conf map[string]any)) []netip.Addr {
	t.Helper()
	result, err := n.add(t, containerID, pod, change)
	if err != nil {
		t.Fatal(err)
	}
	return addrsOf(t, result)
}

func asIs(map[string]any) {}

// dialPromptly is dial for a connection that must be made without a packet lost.
func dialPromptly(t *testing.T, from, to namespace, addr netip.Addr) netip.Addr {
	t.Helper()
	seen, again := connect(t, from, to, addr)
	if again > 0 {
		t.Errorf("a connection to %s needs %d retransmissions", addr, again)
	}
	return seen
}

// Whatever is set for interfaces to come, no address of a pod is tentative.
func TestNoPodAddressIsTentative(t *testing.T) {
	for name, disabled := range map[string]string{"IPv6 on": "0", "IPv6 off until asked for": "1"} {
		t.Run(name, func(t *testing.T) {
			n, pod, neighbour := newNode(t, families["dual stack"]...), newNamespace(t), newNamespace(t)
			for _, at := range []namespace{n.namespace, pod, neighbour} {
				at.set(t, map[string]string{
					"ipv6/conf/default/accept_dad":    "1",
					"ipv6/conf/default/dad_transmits": "5",
					"ipv6/conf/default/accept_ra":     "2",
					"ipv6/conf/default/autoconf":      "1",
					"ipv4/conf/default/rp_filter":     "1",
					"ipv4/conf/all/rp_filter":         "1",
				})
			}
			for _, at := range []namespace{pod, neighbour} {
				at.set(t, map[string]string{"ipv6/conf/all/disable_ipv6": disabled, "ipv6/conf/default/disable_ipv6": disabled})
			}
			n.addTo(t, "neighbour", neighbour, asIs)
			addrs := n.addTo(t, "pod", pod, asIs)
			tentative := func() {
				t.Helper()
				for _, at := range []namespace{n.namespace, pod} {
					for _, a := range at.flagged(t, unix.IFA_F_TENTATIVE) {
						t.Errorf("%s is tentative", a)
					}
				}
			}
			tentative()
			for _, addr := range addrs {
				dialPromptly(t, neighbour, pod, addr)
				dialPromptly(t, n.namespace, pod, addr)
				dialPromptly(t, pod, pod, addr)
			}
			dialPromptly(t, pod, pod, netip.IPv6Loopback())
			tentative() // nor is what the kernel has added meanwhile
		})
	}
}

// flagged lists the addresses that have a flag (IFA_FLAGS in rtnetlink(7)).
func (n namespace) flagged(t *testing.T, flag int) (texts []string) {
	t.Helper()
	n.in(t, func() error {
		addrs, err := rtnetlink.Dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_V6) })
		for _, a := range addrs {
			if a.Flags&flag != 0 {
				texts = append(texts, a.String())
			}
		}
		return err
	})
	return texts
}

func TestAPodMayHaveTwoAttachmentsOfAnyName(t *testing.T) {
	n, pod := newNode(t, families["dual stack"]...), newNamespace(t)
	// Behind the second attachment, somewhere the first leads to as well.
	behind := []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1")}
	n.in(t, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		for _, addr := range behind {
			err = errors.Join(err, netlink.AddrAdd(lo, &netlink.Addr{IPNet: rtnetlink.HostNet(addr), Flags: unix.IFA_F_NODAD}))
		}
		return errors.Join(err, netlink.LinkSetUp(lo))
	})
	attachments := map[string]map[string]any{
		"podnet0": nil,
		"net.1": {"routes": []any{
			map[string]any{"dst": "198.51.100.0/24"}, map[string]any{"dst": "2001:db8::/32"},
		}},
	}
	args := func(name string) *skel.CmdArgs {
		args, conf := n.args("pod", pod.Path()), n.conf("1.1.0")
		conf["ipam"] = attachments[name]
		args.IfName, args.StdinData = name, encode(t, conf)
		return args
	}
	addrs := map[string][]netip.Addr{}
	for _, name := range []string{"podnet0", "net.1"} {
		if err := n.call(n.plugin.Add, args(name)); err != nil {
			t.Fatal(err)
		}
		addrs[name] = pod.addrs(t, name)
		if len(addrs[name]) != 2 {
			t.Fatalf("%s has %v", name, addrs[name])
		}
	}
	for i := range behind {
		requireSameAddrs(t, []netip.Addr{
			dialPromptly(t, pod, n.namespace, n.own[i]), dialPromptly(t, pod, n.namespace, behind[i]),
		}, []netip.Addr{
			ofFamily(addrs["podnet0"], behind[i]), ofFamily(addrs["net.1"], behind[i]),
		})
		dialPromptly(t, n.namespace, pod, ofFamily(addrs["podnet0"], behind[i]))
	}
	if err := n.call(n.plugin.Del, args("net.1")); err != nil {
		t.Fatal(err)
	}
	for i := range behind { // what is left leads there
		if from := dialPromptly(t, pod, n.namespace, behind[i]); !slices.Contains(addrs["podnet0"], from) {
			t.Errorf("the pod is seen as %s", from)
		}
	}
	if err := n.call(n.plugin.Del, args("podnet0")); err != nil {
		t.Fatal(err)
	}
	n.requireNothingLeft()
}

func ofFamily(addrs []netip.Addr, like netip.Addr) netip.Addr {
	i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Is4() == like.Is4() })
	return addrs[i]
}

// A packet that is too large for a neighbour is answered with the size that passes.
func TestTooLargePacketIsAnswered(t *testing.T) {
	const smaller = 1300
	n, pod, small := newNode(t, families["dual stack"]...), newNamespace(t), newNamespace(t)
	n.addTo(t, "pod", pod, asIs)
	for _, addr := range n.addTo(t, "small", small, func(conf map[string]any) { conf["mtu"] = smaller }) {
		var mtu int
		pod.in(t, func() error {
			conn, err := net.Dial("udp", netip.AddrPortFrom(addr, 9).String())
			if err != nil {
				return err
			}
			defer conn.Close()
			raw, err := conn.(*net.UDPConn).SyscallConn()
			if err != nil {
				return err
			}
			level, discover, known := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_MTU
			if addr.Is6() {
				level, discover, known = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_MTU
			}
			option := func(f func(fd int) error) error {
				var err error
				controlErr := raw.Control(func(fd uintptr) { err = f(int(fd)) })
				return errors.Join(controlErr, err)
			}
			if err := option(func(fd int) error { return unix.SetsockoptInt(fd, level, discover, unix.IP_PMTUDISC_DO) }); err != nil {
				return err
			}
			if _, err := conn.Write(make([]byte, smaller)); err != nil {
				return err
			}
			for deadline := time.Now().Add(time.Minute); mtu != smaller && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				err := option(func(fd int) (err error) {
					mtu, err = unix.GetsockoptInt(fd, level, known)
					return err
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		if mtu != smaller {
			t.Errorf("to %s, the pod takes %d for the largest packet instead of %d", addr, mtu, smaller)
		}
	}
}

// A node on which IPv6 is disabled takes IPv4 pods, and lets them go.
func TestNodeWithIPv6Disabled(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	pods := []namespace{newNamespace(t), newNamespace(t)}
	for _, at := range append(pods, n.namespace) {
		at.set(t, map[string]string{"ipv6/conf/all/disable_ipv6": "1", "ipv6/conf/default/disable_ipv6": "1"})
	}
	var addrs []netip.Addr
	for i, pod := range pods {
		addrs = append(addrs, n.addTo(t, fmt.Sprint("pod", i), pod, asIs)...)
	}
	dialPromptly(t, pods[0], pods[1], addrs[1])
	dialPromptly(t, pods[1], pods[0], addrs[0])
	dialPromptly(t, n.namespace, pods[0], addrs[0])
	dialPromptly(t, pods[0], n.namespace, n.own[0])
	for i, pod := range pods {
		if spoken := pod.flagged(t, -1); len(spoken) > 0 {
			t.Errorf("the pod speaks IPv6: %s", spoken)
		}
		if err := n.call(n.plugin.Del, n.args(fmt.Sprint("pod", i), pod.Path())); err != nil {
			t.Error(err)
		}
	}
	n.requireNothingLeft()
}
