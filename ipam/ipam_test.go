package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
)

var cmpAddrs = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, "weft")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func attachment(n int) Attachment {
	return Attachment{ContainerID: fmt.Sprintf("container%d", n), IfName: "eth0"}
}

func acquire(t *testing.T, s *Store, n int, ranges []netip.Prefix, reserved ...netip.Addr) []netip.Addr {
	t.Helper()
	lease, err := s.Acquire(t.Context(), wanted(n), pool(ranges, reserved...))
	if err != nil {
		t.Fatal(err)
	}
	return lease.Addresses
}

// pool has no cooldown.
func pool(ranges []netip.Prefix, reserved ...netip.Addr) Pool {
	p := Pool{Ranges: ranges}
	for _, a := range reserved {
		p.Reserved = append(p.Reserved, netip.PrefixFrom(a, a.BitLen()))
	}
	return p
}

func wanted(n int, addresses ...string) Lease {
	return Lease{Attachment: attachment(n), Addresses: addrs(addresses...)}
}

func list(t *testing.T, s *Store) []Lease {
	t.Helper()
	leases, _, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	return leases
}

func release(t *testing.T, s *Store, n int) {
	t.Helper()
	if _, ok, err := s.Release(t.Context(), attachment(n)); err != nil || !ok {
		t.Fatalf("release: %t, %v", ok, err)
	}
}

func TestOpenRefusesWhatCannotBeAFile(t *testing.T) {
	long := make([]byte, maxNetworkName+1)
	for i := range long {
		long[i] = 'n'
	}
	tests := []struct{ name, dir, network string }{
		{"relative directory", "var/lib/weft", "weft"},
		{"no name", "/var/lib/weft", ""},
		{"a way out", "/var/lib/weft", "../weft"},
		{"the directory itself", "/var/lib/weft", "."},
		{"too long", "/var/lib/weft", string(long)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Open(tt.dir, tt.network); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestAnAttachmentGetsOneAddressOfEachFamily(t *testing.T) {
	tests := []struct {
		name     string
		ranges   []netip.Prefix
		reserved []netip.Addr
		want     []netip.Addr
	}{
		{"IPv4", prefixes("10.0.0.0/24"), nil, addrs("10.0.0.1")},
		{"IPv6", prefixes("fd00::/64"), nil, addrs("fd00::1")},
		{"both", prefixes("10.0.0.0/24", "fd00::/64"), nil, addrs("10.0.0.1", "fd00::1")},
		{"IPv4 first, whatever the order", prefixes("fd00::/64", "10.0.0.0/24"), nil, addrs("10.0.0.1", "fd00::1")},
		{"none that is reserved", prefixes("10.0.0.0/24", "fd00::/64"), addrs("10.0.0.1", "fd00::1"), addrs("10.0.0.2", "fd00::2")},
		{"from the first range that has one", prefixes("10.0.0.0/30", "10.0.9.0/30"), addrs("10.0.0.1", "10.0.0.2"), addrs("10.0.9.1")},
		{"from a range of two", prefixes("10.0.0.0/31"), addrs("10.0.0.0"), addrs("10.0.0.1")},
		{"from a range of one", prefixes("10.0.0.7/32"), nil, addrs("10.0.0.7")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := acquire(t, open(t, t.TempDir()), 1, tt.ranges, tt.reserved...)
			if diff := cmp.Diff(tt.want, got, cmpAddrs); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTheSameAttachmentGetsTheSameLeaseAgain(t *testing.T) {
	s := open(t, t.TempDir())
	ranges := prefixes("10.0.0.0/24", "fd00::/64")
	first, again := acquire(t, s, 1, ranges), acquire(t, s, 1, ranges)
	if diff := cmp.Diff(first, again, cmpAddrs); diff != "" {
		t.Error(diff)
	}
	if leases := list(t, s); len(leases) != 1 {
		t.Errorf("leases %v, want one", leases)
	}
}

func TestALeaseOutsideTheRangesIsReplaced(t *testing.T) {
	s := open(t, t.TempDir())
	acquire(t, s, 1, prefixes("10.0.0.0/24"))
	got := acquire(t, s, 1, prefixes("10.0.5.0/24", "fd00::/64"))
	if diff := cmp.Diff(addrs("10.0.5.1", "fd00::1"), got, cmpAddrs); diff != "" {
		t.Error(diff)
	}
	if leases := list(t, s); len(leases) != 1 {
		t.Errorf("%d leases, want 1", len(leases))
	}
}

func TestAnExhaustedFamilyLeavesTheOtherUntouched(t *testing.T) {
	s := open(t, t.TempDir())
	ranges := prefixes("10.0.0.0/24", "fd00::/127")
	acquire(t, s, 1, ranges)
	acquire(t, s, 2, ranges)
	if err := s.Available(pool(ranges)); !errors.Is(err, ErrExhausted) {
		t.Errorf("Available: %v, want ErrExhausted", err)
	}
	before, _ := os.ReadFile(s.Path())
	if _, err := s.Acquire(t.Context(), wanted(3), pool(ranges)); !errors.Is(err, ErrExhausted) {
		t.Fatalf("got %v, want ErrExhausted", err)
	}
	after, _ := os.ReadFile(s.Path())
	if diff := cmp.Diff(string(before), string(after)); diff != "" {
		t.Error(diff)
	}
	release(t, s, 1)
	if err := s.Available(pool(ranges)); err != nil {
		t.Errorf("Available after a release: %v", err)
	}
}

func TestReleasingWhatIsNotHeldIsSuccess(t *testing.T) {
	s := open(t, t.TempDir())
	for range 2 {
		if _, ok, err := s.Release(t.Context(), attachment(1)); ok || err != nil {
			t.Errorf("got %t, %v", ok, err)
		}
	}
}

func TestRotationContinuesAfterARestart(t *testing.T) {
	dir := t.TempDir()
	ranges := prefixes("10.0.0.0/24")
	seen := map[netip.Addr]bool{}
	for n := range 254 {
		addr := acquire(t, open(t, dir), n, ranges)[0]
		if seen[addr] {
			t.Fatalf("%s came back after %d others", addr, n)
		}
		seen[addr] = true
		release(t, open(t, dir), n)
	}
}

func TestFindAndListShowWhatIsHeld(t *testing.T) {
	s := open(t, t.TempDir())
	if leases := list(t, s); len(leases) != 0 {
		t.Fatalf("before the first lease: %v", leases)
	}
	ranges := prefixes("10.0.0.0/24")
	acquire(t, s, 2, ranges)
	acquire(t, s, 1, ranges)
	want := []Lease{wanted(2, "10.0.0.1"), wanted(1, "10.0.0.2")}
	if diff := cmp.Diff(want, list(t, s), cmpAddrs, cmpopts.IgnoreFields(Lease{}, "Since")); diff != "" {
		t.Error(diff)
	}
	if lease, ok, err := s.Find(attachment(1)); err != nil || !ok || lease.Addresses[0] != want[1].Addresses[0] {
		t.Errorf("Find: %v, %t, %v", lease, ok, err)
	}
	if _, ok, err := s.Find(attachment(3)); err != nil || ok {
		t.Errorf("Find of none: %t, %v", ok, err)
	}
}

func TestAnIncompleteAttachmentIsRefused(t *testing.T) {
	s := open(t, t.TempDir())
	if _, err := s.Acquire(t.Context(), Lease{Attachment: Attachment{ContainerID: "c"}}, pool(prefixes("10.0.0.0/24"))); err == nil {
		t.Error("accepted")
	}
}

func TestALockHolderThatHangsIsNotWaitedForEver(t *testing.T) {
	s := open(t, t.TempDir())
	acquire(t, s, 1, prefixes("10.0.0.0/24"))
	f, err := os.OpenFile(filepath.Join(filepath.Dir(s.Path()), "weft.lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := lockByte(f, 0, unix.F_OFD_SETLKW); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := s.Release(ctx, attachment(1)); !errors.Is(err, ErrLocked) {
		t.Errorf("got %v, want ErrLocked", err)
	}
	if _, _, err := s.List(); err != nil {
		t.Errorf("List waits for the lock: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	// The wait that was given up must not have kept the lock.
	release(t, s, 1)
}

// Holding an attachment delays only that attachment.
func TestHoldDelaysOneAttachment(t *testing.T) {
	s := open(t, t.TempDir())
	letGo, err := s.Hold(t.Context(), attachment(1))
	if err != nil {
		t.Fatal(err)
	}
	other, err := s.Hold(t.Context(), attachment(2))
	if err != nil {
		t.Fatal(err)
	}
	other()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Hold(ctx, attachment(1)); !errors.Is(err, ErrLocked) {
		t.Fatalf("got %v, want ErrLocked", err)
	}
	letGo()
	again, err := s.Hold(t.Context(), attachment(1))
	if err != nil {
		t.Fatal(err)
	}
	again()
}

// An unusable state directory is an error of every change.
func TestUnusableStateDir(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, file)
	if _, err := s.Acquire(t.Context(), wanted(1), pool(prefixes("10.0.0.0/24"))); err == nil {
		t.Error("Acquire succeeded")
	}
	if _, _, err := s.Release(t.Context(), attachment(1)); err == nil {
		t.Error("Release succeeded")
	}
	if _, err := s.Hold(t.Context(), attachment(1)); err == nil {
		t.Error("Hold succeeded")
	}
	if _, _, err := s.List(); err == nil {
		t.Error("List succeeded")
	}
	if _, _, err := s.Find(attachment(1)); err == nil {
		t.Error("Find succeeded")
	}
	if err := s.Available(pool(prefixes("10.0.0.0/24"))); err == nil {
		t.Error("Available succeeded")
	}
	if _, err := s.Usage(Pool{}); err == nil {
		t.Error("Usage succeeded")
	}
}

// Ranges that cannot be used are refused before anything is written.
func TestUnusableRangesAreRefused(t *testing.T) {
	s := open(t, t.TempDir())
	if _, err := s.Acquire(t.Context(), wanted(1), Pool{}); err == nil {
		t.Error("Acquire succeeded")
	}
	if err := s.Available(Pool{}); err == nil {
		t.Error("Available succeeded")
	}
	if _, err := os.Stat(filepath.Dir(s.Path())); !os.IsNotExist(err) {
		t.Errorf("the directory was made: %v", err)
	}
}

// All networks of a node take addresses from the same pod CIDRs.
func TestNetworksShareNoAddress(t *testing.T) {
	dir, c := t.TempDir(), &clock{moment{"boot", time.Hour}}
	p := twoAddresses()
	at := func(n int) *Store { return c.install(openFor(t, dir, n)) }
	take := func(n int, asked ...string) (netip.Addr, error) {
		lease, err := at(n).Acquire(t.Context(), wanted(n, asked...), p)
		if err != nil {
			return netip.Addr{}, err
		}
		return lease.Addresses[0], nil
	}
	first, err := take(0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := take(1, first.String()); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), attachment(0).String()) {
		t.Errorf("an address that another network holds is refused with %v", err)
	}
	if err := at(1).Record(t.Context(), wanted(1, first.String())); !errors.Is(err, ErrRefused) {
		t.Errorf("an address that another network holds is recorded with %v", err)
	}
	second, err := take(1)
	if err != nil || second == first {
		t.Fatalf("the second network gets %s, %v", second, err)
	}
	if _, err := take(2); !errors.Is(err, ErrExhausted) || !errors.Is(at(2).Available(p), ErrExhausted) {
		t.Errorf("a pool that both networks exhaust: %v, %v", err, at(2).Available(p))
	}
	if u, err := at(2).Usage(p); err != nil || u.Leases != 2 || u.Pools[0].Free() != 0 {
		t.Errorf("usage %+v, %v", u, err)
	}
	release(t, at(1), 1)
	c.pass(time.Second)
	release(t, at(0), 0)
	if got, err := take(2); err != nil || got != second {
		t.Errorf("got %s, %v; want %s, which the other network released first", got, err, second)
	}
	damage(t, at(1))
	if _, err := take(4); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "other.json") {
		t.Errorf("with another network's file damaged: %v", err)
	}
}
