package hostnet

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestForwardingKeepsRouterAdverts(t *testing.T) {
	ns, router := newNamespace(t), newNamespace(t)
	ns.openTUN(t, "weft0")
	for _, name := range []string{"eth0", "eth0.100", "quiet", "pod1"} {
		group := uint32(0)
		if name == "pod1" {
			group = 93
		}
		veth(t, ns, name, group, router, name)
	}
	ns.run(t, "sysctl", "-qw", "net.ipv6.conf.quiet.accept_ra=0")
	ns.apply(t, newHost(), testNetwork())
	for name, want := range map[string]string{"eth0": "2", "eth0/100": "2", "quiet": "0", "pod1": "1", "weft0": "0"} {
		if got := ns.sysctl(t, "net.ipv6.conf."+name+".accept_ra"); got != want {
			t.Errorf("accept_ra of %s is %s, want %s", name, got, want)
		}
	}
}

func TestTheTUNForwardsEvenIfInterfacesToComeDoNot(t *testing.T) {
	ns := newNamespace(t)
	ns.run(t, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.default.forwarding=0")
	ns.openTUN(t, "weft0")
	host := newHost()
	for range 2 {
		ns.apply(t, host, testNetwork())
		if got := ns.sysctl(t, "net.ipv4.conf.weft0.forwarding"); got != "1" {
			t.Errorf("forwarding is %s", got)
		}
		ns.run(t, "sysctl", "-qw", "net.ipv4.conf.weft0.forwarding=0") // as another program may
	}
}

func TestAReadOnlySysctlIsNamedWithItsRemedy(t *testing.T) {
	ns := newNamespace(t)
	ns.openTUN(t, "weft0")
	host := newHost()
	unprepared := withMounts(func() error {
		return errors.Join(unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""),
			unix.Mount("", "/proc/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	}, func() error { return ns.tryApply(t, host, testNetwork()) })
	for _, want := range []string{"net.ipv4.ip_forward=1", "net.ipv4.conf.weft0.rp_filter=2", "/proc/sys writable"} {
		if unprepared == nil || !strings.Contains(unprepared.Error(), want) {
			t.Errorf("no %q in the error: %v", want, unprepared)
		}
	}
	if !errors.Is(unprepared, unix.EROFS) {
		t.Errorf("not EROFS: %v", unprepared)
	}
	if prepared := ns.tryApply(t, host, testNetwork()); prepared != nil {
		t.Error(prepared)
	}
}

func TestUnderlayMTU(t *testing.T) {
	ns, far := newNamespace(t), newNamespace(t)
	for name, mtu := range map[string]string{"eth0": "1450", "eth1": "9000", "eth2": "1300"} {
		veth(t, ns, name, 0, far, name)
		ns.ip(t, "link set "+name+" mtu "+mtu)
	}
	ns.ip(t, "address add 192.0.2.1/24 dev eth0")
	ns.ip(t, "address add 198.51.100.1/24 dev eth1")
	ns.ip(t, "address add 2001:db8::1/64 dev eth2 nodad")
	ns.ip(t, "address add 203.0.113.1/32 dev lo")

	underlay := func(addr string) (mtu int, ifname string, err error) {
		ns.do(t, func() { mtu, ifname, err = UnderlayMTU(netip.MustParseAddr(addr)) })
		return mtu, ifname, err
	}
	expectMTU := func(addr string, wantMTU int, wantName string) {
		t.Helper()
		mtu, ifname, err := underlay(addr)
		if mtu != wantMTU || ifname != wantName || err != nil {
			t.Errorf("UnderlayMTU(%s) = %d, %q, %v, want %d, %q", addr, mtu, ifname, err, wantMTU, wantName)
		}
	}
	expectMTU("192.0.2.1", 1450, "eth0")
	expectMTU("198.51.100.1", 9000, "eth1")
	expectMTU("::ffff:198.51.100.1", 9000, "eth1")
	expectMTU("2001:db8::1", 1300, "eth2")
	if _, _, err := underlay("8.8.8.8"); err == nil {
		t.Error("no error without the address and without a default route")
	}
	expectMTU("203.0.113.1", 65536, "lo")

	ns.ip(t, "route add default via 198.51.100.2 metric 10")
	expectMTU("8.8.8.8", 9000, "eth1")
	ns.ip(t, "route add default nexthop via 198.51.100.2 nexthop via 192.0.2.2")
	expectMTU("8.8.8.8", 1450, "eth0")
	expectMTU("0.0.0.0", 1450, "eth0")
	expectMTU("203.0.113.1", 1450, "eth0")
}

func TestCheckPassesWhereTheOtherTestsRun(t *testing.T) {
	if err := Check(); err != nil {
		t.Error(err)
	}
}

func TestCheckNamesWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	check(t, os.WriteFile(file, nil, 0o600))
	tun := func(path string) error {
		_, err := checkTUN(path)
		return err
	}
	for name, c := range map[string]struct {
		err    error
		remedy string
	}{
		"old kernel":       {checkKernel("5.4.0-200-generic"), "5.10 or later"},
		"very old kernel":  {checkKernel("4.19.1"), "5.10 or later"},
		"unknown kernel":   {checkKernel("plan9"), "5.10 or later"},
		"no TUN device":    {tun(filepath.Join(dir, "tun")), "load the module tun"},
		"TUN is a file":    {tun(file), "mknod"},
		"TUN is /dev/null": {tun("/dev/null"), "mknod"},
		"no program":       {checkBinary("no-such-nft"), "install the package"},
	} {
		if !errors.Is(c.err, ErrPrerequisite) || !strings.Contains(c.err.Error(), c.remedy) {
			t.Errorf("%s: no remedy %q in: %v", name, c.remedy, c.err)
		}
	}
	for _, release := range []string{"5.10.0-28-amd64", "5.15.1", "6.18.44"} {
		if err := checkKernel(release); err != nil {
			t.Errorf("Linux %s: %v", release, err)
		}
	}
}

func TestCheckMissesTheCapability(t *testing.T) {
	done := make(chan error)
	go func() {
		// A thread without capabilities ends with this goroutine.
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			done <- err
			return
		}
		done <- Check()
	}()
	err := <-done
	if !errors.Is(err, ErrPrerequisite) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("no CAP_NET_ADMIN in: %v", err)
	}
}
