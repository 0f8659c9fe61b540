package strict

import (
	"net/netip"
	"strings"
	"testing"
)

// faulty fails the test unless err contains fault, or is nil if fault is "".
func faulty(t *testing.T, what string, err error, fault string) {
	t.Helper()
	if fault == "" && err != nil || fault != "" && (err == nil || !strings.Contains(err.Error(), fault)) {
		t.Errorf("%s: %v, want %q", what, err, fault)
	}
}

func TestEndpointsAreAddressesAndPorts(t *testing.T) {
	for text, fault := range map[string]string{
		"192.168.77.1:9338": "", "[fd00:77::1]:1": "",
		"192.168.77.1": "192.168.77.1 has no port; write it like 192.168.77.1:9338",
		"fd00:77::1":   "fd00:77::1 has no port; write it like [fd00:77::1]:9338",
		"node1:9338":   "is not an IP address and port", "192.168.77.1:65536": "is not an IP address and port", "": "is not an IP address and port",
		"192.168.77.1:0":             "has port 0",
		"[fe80::1%eth0]:9338":        "has a zone",
		"[::ffff:192.168.77.1]:9338": "is IPv4-mapped; write 192.168.77.1:9338",
	} {
		got, err := ParseAddrPort(text)
		faulty(t, text, err, fault)
		if fault == "" && got.String() != text {
			t.Errorf("%s is read as %s", text, got)
		}
	}
	faulty(t, "none", CheckAddrPort(netip.AddrPort{}), "the address is missing")
}

func TestNodeAddressesAreOfTheUnderlay(t *testing.T) {
	cluster := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/48")}
	for text, fault := range map[string]string{
		"192.168.77.1": "", "10.243.255.255": "", "169.254.7.7": "", "fd00:77::1": "",
		"0.0.0.0": "unspecified", "::": "unspecified", "127.0.0.1": "loopback", "::1": "loopback",
		"224.0.0.1": "multicast or broadcast", "ff02::1": "multicast or broadcast", "255.255.255.255": "multicast or broadcast",
		"fe80::1": "link-local", "fe80::1%eth0": "no address of an underlay", "::ffff:192.168.77.1": "no address of an underlay",
		"10.244.0.1": "inside the cluster CIDR 10.244.0.0/16", "fd00:244::1": "inside the cluster CIDR fd00:244::/48",
	} {
		a := netip.MustParseAddr(text)
		faulty(t, text, CheckNodeAddress(a, cluster), fault)
		faulty(t, text+" among others", CheckNodeAddresses([]netip.Addr{netip.MustParseAddr("192.0.2.1"), a}, cluster), fault)
	}
	faulty(t, "none", CheckNodeAddress(netip.Addr{}, cluster), "no address of an underlay")
	many := make([]netip.Addr, MaxNodeAddresses+1)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
	}
	faulty(t, "as many as may be", CheckNodeAddresses(many[1:], cluster), "")
	faulty(t, "one more", CheckNodeAddresses(many, cluster), "7 are more than 6; remove those that pods don't need")
}

func TestUnknownNamesGetARemedy(t *testing.T) {
	known := []string{"node", "clusterCIDRs", "vxlan.vni"}
	for name, want := range map[string]string{
		"nodes": "did you mean node?", "cluster-cidrs": "did you mean clusterCIDRs?", "vni": "did you mean vxlan.vni?",
		"pigeon": "remove it", strings.Repeat("node", 20): "remove it",
	} {
		if got := DidYouMean(name, known); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
