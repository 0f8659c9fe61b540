package cniplugin

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"weft/cniplugin/wiring"
	"weft/internal/rtnetlink"
	"weft/ipam"
)

// configuration is what a namespace has of routes and addresses.
func (n namespace) configuration(t *testing.T) string {
	t.Helper()
	var lines []string
	n.in(t, func() error {
		routes, err := rtnetlink.Dump(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return err
		}
		for _, r := range routes {
			lines = append(lines, r.String())
		}
		addrs, err := rtnetlink.Dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
		for _, a := range addrs {
			lines = append(lines, fmt.Sprintf("%s on %d, flags %x", a.IPNet, a.LinkIndex, a.Flags))
		}
		return err
	})
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// ownLinkLocal is the last of what the kernel itself adds to a link, a while after it is up.
var ownLinkLocal = regexp.MustCompile(`Dst: fe80::[^/]+/128`)

func TestAPodTakesNoRouterAdvertisement(t *testing.T) {
	n, pod := newNode(t, families["dual stack"]...), newNamespace(t)
	pod.set(t, map[string]string{"ipv6/conf/default/accept_ra": "2", "ipv6/conf/default/autoconf": "1"})
	n.addTo(t, "pod", pod, asIs)
	link := wiring.HostName(ipam.Attachment{ContainerID: "pod", IfName: "eth0"})
	dialPromptly(t, pod, n.namespace, n.own[1])
	var before string
	eventually(t, "the pod to have the kernel's link-local address", func() bool {
		before = pod.configuration(t)
		return ownLinkLocal.MatchString(before)
	})
	n.advertise(t, link)
	time.Sleep(50 * time.Millisecond)
	if diff := cmp.Diff(before, pod.configuration(t)); diff != "" {
		t.Errorf("an advertisement changed the pod (-before +after):\n%s", diff)
	}
	pod.set(t, map[string]string{"ipv6/conf/eth0/accept_ra": "2"})
	n.advertise(t, link)
	eventually(t, "the advertisement to change a pod that takes it", func() bool { return pod.configuration(t) != before })
}

// advertise sends a router advertisement (RFC 4861, section 4.2) with a prefix to take
// addresses from (section 4.6.2), by a router that is no default one: the kernel ignores
// the whole of one that it has a default route to already.
func (n namespace) advertise(t *testing.T, link string) {
	t.Helper()
	advert := []byte{134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
		3, 4, 64, 0xc0, 0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0, 0, 0}
	advert = append(advert, netip.MustParseAddr("2001:db8:bad::").AsSlice()...)
	n.in(t, func() error {
		conn, err := net.ListenPacket("ip6:ipv6-icmp", "fe80::1%"+link)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := ipv6.NewPacketConn(conn).SetMulticastHopLimit(255); err != nil {
			return err
		}
		_, err = conn.WriteTo(advert, &net.IPAddr{IP: net.ParseIP("ff02::1"), Zone: link})
		return err
	})
}

// A pod that claims another's address gets nothing that is meant for that.
func TestPodClaimsAnothersAddress(t *testing.T) {
	n, rogue, victim := newNode(t, families["dual stack"]...), newNamespace(t), newNamespace(t)
	n.set(t, map[string]string{
		"ipv4/conf/all/arp_accept": "1", "ipv4/conf/default/arp_accept": "1",
		"ipv4/conf/all/rp_filter": "2", "ipv6/conf/default/accept_untracked_na": "1",
	})
	n.addTo(t, "rogue", rogue, asIs)
	addrs := n.addTo(t, "victim", victim, asIs)
	neighbour := newNamespace(t)
	n.addTo(t, "neighbour", neighbour, asIs)
	victims := wiring.HostName(ipam.Attachment{ContainerID: "victim", IfName: "eth0"})
	before := n.permanent(t, victims)

	for i := range addrs {
		rogue.claim(t, addrs[i])
		rogue.claim(t, wiring.GatewayOf(addrs[i]))
	}
	time.Sleep(20 * time.Millisecond)
	for i, addr := range addrs {
		dialPromptly(t, n.namespace, victim, addr)
		dialPromptly(t, neighbour, victim, addr)
		dialPromptly(t, victim, n.namespace, n.own[i])
	}
	if diff := cmp.Diff(before, n.permanent(t, victims)); diff != "" {
		t.Errorf("the victim's neighbour entries changed (-before +after):\n%s", diff)
	}
}

// permanent lists the neighbours of a link that never change.
func (n namespace) permanent(t *testing.T, name string) (texts []string) {
	t.Helper()
	n.in(t, func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		neighbours, err := rtnetlink.Dump(func() ([]netlink.Neigh, error) { return netlink.NeighList(link.Attrs().Index, netlink.FAMILY_ALL) })
		for _, neighbour := range neighbours {
			if neighbour.State == netlink.NUD_PERMANENT {
				texts = append(texts, neighbour.String())
			}
		}
		return err
	})
	slices.Sort(texts)
	return texts
}

// claim announces on the pod's link that it has an address: by an ARP reply and request
// (RFC 826), or by an unsolicited neighbour advertisement (RFC 4861, section 4.4).
func (n namespace) claim(t *testing.T, addr netip.Addr) {
	t.Helper()
	if addr.Is6() {
		n.in(t, func() error { return claim6(addr) })
		return
	}
	n.in(t, func() error { return claim4(addr) })
}

func claim6(addr netip.Addr) error {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	conn, err := net.ListenPacket("ip6:ipv6-icmp", "::")
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := ipv6.NewPacketConn(conn).SetMulticastHopLimit(255); err != nil {
		return err
	}
	message := append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, addr.AsSlice()...) // to override
	message = append(append(message, 2, 1), link.Attrs().HardwareAddr...)
	_, err = conn.WriteTo(message, &net.IPAddr{IP: net.ParseIP("ff02::1"), Zone: strconv.Itoa(link.Attrs().Index)})
	return err
}

func claim4(addr netip.Addr) error {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	mac, everybody := link.Attrs().HardwareAddr, net.HardwareAddr{255, 255, 255, 255, 255, 255}
	var errs []error
	for _, operation := range []byte{1, 2} {
		for _, asked := range []netip.Addr{addr, wiring.GatewayOf(addr)} {
			frame := slices.Concat(everybody, mac, []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, operation},
				mac, addr.AsSlice(), everybody, asked.AsSlice())
			errs = append(errs, unix.Sendto(socket, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index}))
		}
	}
	return errors.Join(errs...)
}
