package hostnet

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"weft/internal/marks"
)

// The looks of weft doctor change nothing, and name what other programs made.
func TestLooksNameWhatOthersMade(t *testing.T) {
	cluster := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/32")}
	n := Network{TUN: "weft0", ClusterCIDRs: cluster, Port: 9338, MarkMask: marks.DefaultMask}
	ns := newNamespace(t)
	ns.ip(t, "link add eth0 type veth peer name far")
	ns.ip(t, "link set eth0 up")
	ns.ip(t, "link set far up")
	ns.ip(t, "address add 192.0.2.1/24 dev eth0")
	for _, harmless := range []string{"10.0.0.0/8 via 192.0.2.2", "default via 192.0.2.2", "unreachable 10.244.0.0/16 proto 93", "10.244.1.2/32 dev eth0 proto 94"} {
		ns.ip(t, "route add "+harmless)
	}
	foreign := func() []string {
		t.Helper()
		var found []string
		var err error
		ns.do(t, func() { found, err = ForeignRoutes("weft0", cluster) })
		check(t, err)
		return found
	}
	if found := foreign(); len(found) > 0 {
		t.Errorf("routes that do no harm: %v", found)
	}
	ns.ip(t, "route add 10.244.9.0/24 via 192.0.2.2")
	ns.ip(t, "route add 10.244.8.1/32 dev eth0")
	ns.ip(t, "route add 10.244.7.0/24 dev eth0") // a network of the host's
	if found, want := foreign(), []string{"10.244.8.1/32 dev eth0", "10.244.9.0/24 via 192.0.2.2 dev eth0"}; len(found) != 2 || !strings.HasPrefix(found[0], want[0]) || !strings.HasPrefix(found[1], want[1]) {
		t.Errorf("foreign routes %v, want %v", found, want)
	}

	ns.do(t, func() {
		if err := TryRules(t.Context(), n); err != nil {
			t.Errorf("the rules that every other test applies: %v", err)
		}
		n := n
		n.Trusted = []string{strings.Repeat("x", unix.IFNAMSIZ+1)}
		if err := TryRules(t.Context(), n); err == nil {
			t.Error("no error for a rule that the kernel refuses")
		}
	})
	if tables := ns.run(t, "nft", "list", "tables"); tables != "" {
		t.Errorf("after the rules were tried there are tables:\n%s", tables)
	}

	ns.ip(t, "tuntap add weft0 mode tun")
	n.ClusterCIDRs = cluster[:1]
	wrong := func() (names []string) {
		ns.do(t, func() {
			for _, err := range WrongSysctls(n) {
				names = append(names, strings.Fields(err.Error())[1])
			}
		})
		return names
	}
	set := func(name, value string) {
		t.Helper()
		ns.do(t, func() { check(t, os.WriteFile(sysctlPath(name), []byte(value), 0)) })
	}
	for _, s := range [][2]string{{"net.ipv4.ip_forward", "1"}, {"net.ipv4.conf.weft0.rp_filter", "2"}, {"net.ipv6.conf.weft0.addr_gen_mode", "1"}, {"net.ipv6.conf.weft0.accept_ra", "0"}} {
		set(s[0], s[1])
	}
	if names := wrong(); len(names) > 0 {
		t.Errorf("sysctls as weftd sets them: wrong are %v", names)
	}
	set("net.ipv4.conf.weft0.rp_filter", "1")
	set("net.ipv4.ip_forward", "0")
	if names, want := wrong(), []string{"net.ipv4.conf.weft0.rp_filter", "net.ipv4.ip_forward", "net.ipv4.conf.weft0.forwarding"}; !slices.Equal(names, want) {
		t.Errorf("wrong sysctls %v, want %v", names, want)
	}
}
