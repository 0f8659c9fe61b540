package daemon

import (
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/control"
	"weft/daemon/engine"
	"weft/internal/config"
	"weft/internal/warning"
	"weft/ipam"
)

// lease has a pod hold an address on the daemon's node.
func leaseTo(t *testing.T, d *daemon, pod, addr, veth string) {
	t.Helper()
	store, err := ipam.Open(d.config.StateDir, d.config.CNI.Name)
	if err != nil {
		t.Fatal(err)
	}
	l := ipam.Lease{Attachment: ipam.Attachment{ContainerID: pod, IfName: "eth0"}, Pod: "shop/" + pod, Veth: veth, Addresses: []netip.Addr{netip.MustParseAddr(addr)}}
	if err := store.Record(t.Context(), l); err != nil {
		t.Fatal(err)
	}
}

func codes(all []warning.Warning) (codes []string) {
	for _, w := range all {
		codes = append(codes, w.Code)
	}
	return codes
}

// activate makes a plan the one that was applied last.
func activate(d *daemon, plan *control.Plan) {
	d.engine.Begin(plan, nil, nil, nil)
	d.engine.Applied(d.engine.Job(), nil, time.Now())
}

// leaseWarnings are the warnings about leases under the plan that was applied last.
func leaseWarnings(t *testing.T, d *daemon) []warning.Warning {
	t.Helper()
	plan := d.activePlan()
	stranded, err := d.leases.stranded(plan)
	if err != nil {
		t.Fatal(err)
	}
	return d.leases.warnings(plan, stranded)
}

// A node that got other pod CIDRs names each pod that no other node reaches.
func TestStrandedPodsAreNamed(t *testing.T) {
	d := newDaemon(config.Config{StateDir: t.TempDir(), CNI: config.CNI{Name: "weft"}}, slog.New(slog.DiscardHandler), nil)
	activate(d, &control.Plan{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.7.0/24"), netip.MustParsePrefix("fd00:244:7::/64")}})
	leaseTo(t, d, "old4", "10.244.1.2", "weft1")
	leaseTo(t, d, "old6", "fd00:244:1::2", "weft2")
	leaseTo(t, d, "new4", "10.244.7.2", "weft3")
	leaseTo(t, d, "new6", "fd00:244:7::2", "weft4")
	leaseTo(t, d, "bridged", "10.9.0.2", "") // another main plugin's
	got := leaseWarnings(t, d)
	if !slices.Equal(codes(got), []string{"stranded_pod", "stranded_pod"}) {
		t.Fatalf("warnings: %v", got)
	}
	for i, want := range []string{"shop/old4 at 10.244.1.2: this node's pod CIDRs are now 10.244.7.0/24, fd00:244:7::/64", "shop/old6 at fd00:244:1::2"} {
		if !strings.Contains(got[i].Text, want) {
			t.Errorf("%q does not say %q", got[i].Text, want)
		}
	}
	if pods, err := d.leases.stranded(d.activePlan()); err != nil || len(pods) != 2 {
		t.Errorf("%v, %v", pods, err)
	}
	d.engine = engine.New(0) // not known yet
	if got := leaseWarnings(t, d); len(got) > 0 {
		t.Errorf("without a plan: %v", got)
	}
}

// A pool without a free address is a warning, and one in which addresses cool down is not.
func TestAnExhaustedPoolIsNamed(t *testing.T) {
	d := newDaemon(config.Config{StateDir: t.TempDir(), CNI: config.CNI{Name: "weft"}}, slog.New(slog.DiscardHandler), nil)
	activate(d, &control.Plan{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/30")}, NodeAddresses: []netip.Addr{netip.MustParseAddr("10.244.1.1")}})
	if got := leaseWarnings(t, d); len(got) > 0 {
		t.Errorf("with a free address: %v", got)
	}
	leaseTo(t, d, "pod", "10.244.1.2", "weft1")
	if got := leaseWarnings(t, d); !slices.Equal(codes(got), []string{"pool_exhausted"}) || !strings.Contains(got[0].Text, "10.244.1.0/30") {
		t.Errorf("without one: %v", got)
	}
	store, _ := ipam.Open(d.config.StateDir, "weft")
	if _, _, err := store.Release(t.Context(), ipam.Attachment{ContainerID: "pod", IfName: "eth0"}); err != nil {
		t.Fatal(err)
	}
	if got := leaseWarnings(t, d); len(got) > 0 {
		t.Errorf("while it cools down: %v", got)
	}
}

// A stateDir in which no lease can be written is a warning before a pod needs one.
func TestAnUnwritableStateDirIsNamed(t *testing.T) {
	dir := t.TempDir()
	warns := func(want string) {
		t.Helper()
		err := ipam.CheckDir(dir)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	mount := func(flags uintptr, options string) {
		t.Helper()
		if err := unix.Mount("weft-test", dir, "tmpfs", flags, options); err != nil {
			t.Fatal("this test mounts a file system; run it as root:", err)
		}
	}
	warns("")
	dir = filepath.Join(dir, "weft", "state")
	warns("") // weftd makes it
	dir = filepath.Dir(filepath.Dir(dir))
	mount(0, "size=64k")
	mounted := dir
	t.Cleanup(func() { _ = unix.Unmount(mounted, unix.MNT_DETACH) })
	warns("is full")
	mount(unix.MS_REMOUNT, "size=8m,nr_inodes=1")
	warns("no inode left")
	mount(unix.MS_REMOUNT, "size=8m,nr_inodes=100")
	warns("")
	mount(unix.MS_REMOUNT|unix.MS_RDONLY, "size=8m")
	warns("read-only file system")
	d := newDaemon(config.Config{StateDir: dir, CNI: config.CNI{Name: "weft"}}, slog.New(slog.DiscardHandler), nil)
	if got := leaseWarnings(t, d); !slices.Equal(codes(got), []string{"state_dir"}) {
		t.Errorf("warnings: %v", got)
	}
	dir = filepath.Join(dir, "absent")
	warns("read-only file system") // where it would be made
}
