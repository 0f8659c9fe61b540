package advertise

import (
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"weft/internal/family"
	"weft/internal/marks"
)

var (
	only4 = []family.Family{family.IPv4}
	only6 = []family.Family{family.IPv6}
	both  = []family.Family{family.IPv4, family.IPv6}

	clusterCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/32")}
	weftLinks    = []string{"weft0"}
)

// imagined is a node of which no kernel knows. It has what the machine of the tests need
// not be able to make.
func imagined(links map[int]link, addrs []address, routes map[family.Family]route) *node {
	for i, l := range links {
		l.up = true
		links[i] = l
	}
	return &node{links: links, addrs: addrs, routeTo: func(to netip.Addr) (route, error) {
		if r, ok := routes[family.Of(to)]; ok {
			return r, nil
		}
		return route{}, errNoRoute
	}}
}

func at(link int, prefix string, flags int) address {
	return address{netip.MustParsePrefix(prefix), link, flags}
}

func via(link int, source string) route {
	addr, _ := netip.ParseAddr(source)
	return route{link: link, source: addr}
}

// expect checks what the text of a rule chooses: an address, or words of the error.
func (c choice) expect(t *testing.T, text string, families []family.Family, want string) {
	t.Helper()
	r, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := c.make(r, families)
	if wanted, parseErr := netip.ParseAddr(want); parseErr == nil {
		if addr != wanted {
			t.Errorf("%s chooses %s, %v instead of %s", text, addr, err, want)
		}
	} else if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s chooses %s, %v instead of an error with %q", text, addr, err, want)
	}
}

func TestAutoPassesOverWhatIsNotTheUnderlays(t *testing.T) {
	for what, other := range map[string]link{
		"an interface of weft":       {name: "weft0", kind: "tun"},
		"a pod's veth":               {name: "weft1234", group: marks.PodLinkGroup},
		"Docker's bridge":            {name: "docker0", kind: "bridge"},
		"Docker's second bridge":     {name: "br-1f0c", kind: "bridge"},
		"libvirt's bridge":           {name: "virbr0", kind: "bridge"},
		"a bridge of Open vSwitch":   {name: "ovs0", kind: "openvswitch"},
		"a container's veth":         {name: "cali1234", kind: "veth"},
		"the services of kube-proxy": {name: "kube-ipvs0", kind: "dummy"},
		"another overlay":            {name: "flannel.1", kind: "vxlan"},
		"a VPN":                      {name: "wg0", kind: "wireguard", uplink: true},
		"the loopback device":        {name: "lo", ofLoop: true},
	} {
		t.Run(what, func(t *testing.T) {
			n := imagined(map[int]link{1: {name: "bond0.100", kind: "vlan"}, 2: other},
				[]address{at(2, "172.17.0.1/16", 0), at(1, "192.168.77.1/24", 0)}, nil)
			choice{n, clusterCIDRs, weftLinks}.expect(t, "auto", only4, "192.168.77.1")
			n.addrs = n.addrs[:1]
			choice{n, clusterCIDRs, weftLinks}.expect(t, "auto", only4, "172.17.0.1 of "+other.name)
		})
	}
}

func TestAutoIsNotLedIntoAVPN(t *testing.T) {
	n := imagined(map[int]link{1: {name: "eth0"}, 2: {name: "wg0", kind: "wireguard"}},
		[]address{at(1, "192.168.77.1/24", 0), at(2, "10.9.0.2/32", 0)}, map[family.Family]route{family.IPv4: via(2, "10.9.0.2")})
	choice{n, nil, nil}.expect(t, "auto", only4, "192.168.77.1")
	choice{n, nil, nil}.expect(t, "can-reach=10.9.0.1", only4, "10.9.0.2")
	choice{n, nil, nil}.expect(t, "interface=wg0", only4, "10.9.0.2")
}

func TestAutoTakesTheDefaultRoutesBridge(t *testing.T) {
	n := imagined(map[int]link{1: {name: "br-ex", kind: "bridge", uplink: true}, 2: {name: "eth1"}},
		[]address{at(2, "10.0.0.1/24", 0), at(1, "192.168.77.1/24", 0), at(1, "fd00:77::1/64", 0)}, map[family.Family]route{family.IPv4: via(1, "192.168.77.1")})
	choice{n, nil, nil}.expect(t, "auto", only4, "192.168.77.1")
	choice{n, nil, nil}.expect(t, "auto", only6, "fd00:77::1")
}

func TestAutoTakesARoutedHostsLoopback(t *testing.T) {
	n := imagined(map[int]link{1: {name: "lo", ofLoop: true}, 2: {name: "eth0", uplink: true}},
		[]address{at(1, "127.0.0.1/8", 0), at(1, "10.1.1.1/32", 0), at(2, "169.254.0.2/30", 0)}, map[family.Family]route{family.IPv4: via(2, "10.1.1.1")})
	choice{n, nil, nil}.expect(t, "auto", only4, "10.1.1.1")
}

func TestALaterFamilyIsForNodesWithoutTheEarlier(t *testing.T) {
	n := imagined(map[int]link{1: {name: "eth0"}}, []address{at(1, "fd00:77::1/64", 0), at(1, "10.244.0.1/24", 0)},
		map[family.Family]route{family.IPv6: via(1, "fd00:77::1")})
	choice{n, clusterCIDRs, nil}.expect(t, "auto", both, "fd00:77::1")
	choice{n, clusterCIDRs, nil}.expect(t, "interface=eth0", both, "fd00:77::1")
	choice{n, clusterCIDRs, nil}.expect(t, "auto", only4, "10.244.0.1 of eth0 is in 10.244.0.0/16")
	choice{n, clusterCIDRs, nil}.expect(t, "interface=eth0", only4, "10.244.0.1 is in 10.244.0.0/16")
	choice{n, clusterCIDRs, nil}.expect(t, "fd00:77::1", only4, "not reached over IPv6")
	choice{n, clusterCIDRs, nil}.expect(t, "10.244.0.1", both, "write another of the node's: fd00:77::1 (eth0)")
	choice{n, clusterCIDRs, nil}.expect(t, "auto", nil, "no family")
}

func TestAnAddressThatWandersIsNotTheNodes(t *testing.T) {
	vip := route{link: 1, source: netip.MustParseAddr("192.168.77.100"), local: true}
	n := imagined(map[int]link{1: {name: "lo", ofLoop: true}, 2: {name: "eth0"}},
		[]address{at(2, "192.168.77.1/24", 0), at(2, "192.168.77.100/32", 0)}, map[family.Family]route{family.IPv4: vip})
	choice{n, nil, nil}.expect(t, "can-reach=192.168.77.100", only4, "192.168.77.1")
	n.addrs = n.addrs[1:]
	choice{n, nil, nil}.expect(t, "can-reach=192.168.77.100", only4, "192.168.77.100")
}

func TestAnAddressThatIsNotUsableIsNotChosen(t *testing.T) {
	for words, flags := range map[string]int{"tentative": unix.IFA_F_TENTATIVE, "another host's": unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED} {
		n := imagined(map[int]link{1: {name: "eth0"}}, []address{at(1, "fd00:77::1/64", flags)}, map[family.Family]route{family.IPv6: via(1, "")})
		for _, rule := range []string{"auto", "interface=eth0", "fd00:77::1"} {
			choice{n, nil, nil}.expect(t, rule, only6, words)
		}
		choice{n, nil, nil}.expect(t, "can-reach=fd00:77::2", only6, "no address of IPv6")
	}
	choice{imagined(nil, nil, nil), clusterCIDRs, nil}.expect(t, "10.244.7.7", only4, "is in 10.244.0.0/16, which is the pods'")
}

// No address of another interface replaces one that is tentative.
func TestTentativeAddressHasNoSubstitute(t *testing.T) {
	n := imagined(map[int]link{1: {name: "eth0", uplink: true}, 2: {name: "eth1"}},
		[]address{at(1, "fd00:77::1/64", unix.IFA_F_TENTATIVE), at(2, "fd00:1::1/64", 0)}, map[family.Family]route{family.IPv6: via(1, "fd00:1::1")})
	choice{n, nil, nil}.expect(t, "auto", only6, "fd00:77::1 of eth0 is tentative")
	choice{n, nil, nil}.expect(t, "can-reach=fd00:9::1", only6, "leads through eth0, whose own addresses are unsuitable")
	n.addrs[0].flags = 0
	choice{n, nil, nil}.expect(t, "auto", only6, "fd00:77::1")
	n.links[2] = link{name: "lo", ofLoop: true, up: true}
	choice{n, nil, nil}.expect(t, "auto", only6, "fd00:1::1") // a routed host's
}
