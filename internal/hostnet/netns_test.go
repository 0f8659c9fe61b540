package hostnet

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weft/internal/marks"
)

// namespace is a network namespace that lives as long as its test.
type namespace struct{ handle netns.NsHandle }

func newNamespace(t testing.TB) namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces; run it as root (sudo go test ./internal/hostnet)")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	check(t, err)
	handle, err := netns.New()
	check(t, err)
	check(t, netns.Set(home))
	check(t, home.Close())
	t.Cleanup(func() { handle.Close() })
	ns := namespace{handle}
	ns.ip(t, "link set lo up")
	return ns
}

// do runs fn in the namespace. What fn opens stays there.
func (ns namespace) do(t testing.TB, fn func()) {
	t.Helper()
	runtime.LockOSThread()
	home, err := netns.Get()
	check(t, err)
	check(t, netns.Set(ns.handle))
	defer func() {
		// A thread that can't return is not given back to the runtime.
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
		home.Close()
	}()
	fn()
}

// run runs a program in the namespace and returns what it prints, without the
// spaces at the ends of lines.
func (ns namespace) run(t testing.TB, name string, args ...string) string {
	t.Helper()
	var out []byte
	var err error
	ns.do(t, func() { out, err = exec.Command(name, args...).CombinedOutput() })
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "\n")
}

func (ns namespace) ip(t testing.TB, args string) string {
	t.Helper()
	return ns.run(t, "ip", strings.Fields(args)...)
}

// nft loads a ruleset in the syntax of nft(8).
func (ns namespace) nft(t testing.TB, ruleset string) {
	t.Helper()
	ns.run(t, "nft", ruleset)
}

func (ns namespace) sysctl(t testing.TB, name string) (value string) {
	t.Helper()
	ns.do(t, func() {
		var err error
		value, err = ReadSysctl(name)
		check(t, err)
	})
	return value
}

// openTUN makes a TUN device in the namespace; it goes when the test ends.
func (ns namespace) openTUN(t testing.TB, name string) *os.File {
	t.Helper()
	var fd int
	// The device belongs to the namespace in which the driver was opened.
	ns.do(t, func() {
		var err error
		fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		check(t, err)
		request, err := unix.NewIfreq(name)
		check(t, err)
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		check(t, unix.IoctlIfreq(fd, unix.TUNSETIFF, request))
	})
	f := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { f.Close() })
	return f
}

// apply applies n in the namespace with host.
func (ns namespace) apply(t testing.TB, host *Host, n Network) {
	t.Helper()
	check(t, ns.tryApply(t, host, n))
}

func (ns namespace) tryApply(t testing.TB, host *Host, n Network) (err error) {
	t.Helper()
	ns.do(t, func() { err = host.Apply(context.Background(), n) })
	return err
}

func (ns namespace) drops(t testing.TB) (drops map[string]uint64) {
	t.Helper()
	ns.do(t, func() {
		var err error
		drops, err = Drops()
		check(t, err)
	})
	return drops
}

// withMounts runs fn on a thread that sees other files than the test, once mount has changed
// them. The thread ends with that.
func withMounts(mount, fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		err := errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		if err == nil {
			err = mount()
		}
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	return <-done
}

func newHost() *Host { return New(slog.New(slog.NewTextHandler(io.Discard, nil))) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func prefixes(list ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

func addresses(list ...string) []netip.Addr {
	var all []netip.Addr
	for _, s := range list {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

func endpoints(list ...string) []netip.AddrPort {
	var all []netip.AddrPort
	for _, s := range list {
		all = append(all, netip.MustParseAddrPort(s))
	}
	return all
}

// testNetwork is a node with two peers, in both families.
func testNetwork() Network {
	return Network{
		TUN:           "weft0",
		MTU:           1400,
		Addresses:     addresses("10.244.1.1", "fd00:244:0:1::1"),
		PodCIDRs:      prefixes("10.244.1.0/24", "fd00:244:0:1::/64"),
		ClusterCIDRs:  prefixes("10.244.0.0/16", "fd00:244::/48"),
		PeerCIDRs:     prefixes("10.244.2.0/24", "fd00:244:0:2::/64", "10.244.3.0/24", "fd00:244:0:3::/64"),
		PeerAddresses: addresses("192.0.2.20", "2001:db8::20", "192.0.2.30", "2001:db8::30"),
		Senders:       addresses("192.0.2.20", "2001:db8::20", "192.0.2.30", "2001:db8::30"),
		PeerEndpoints: endpoints("192.0.2.20:9338", "[2001:db8::20]:9338", "192.0.2.30:9400", "[2001:db8::30]:9400", "192.0.2.31:9400"),
		Known:         addresses("192.0.2.1", "2001:db8::1"),
		Port:          9338,
		SourcePorts:   []uint16{50000, 50001},
		MarkMask:      marks.DefaultMask,
		RandomPorts:   true,
	}
}
