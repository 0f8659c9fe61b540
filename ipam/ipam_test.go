package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
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
	lease, _, err := s.Acquire(t.Context(), attachment(n), ranges, reserved)
	if err != nil {
		t.Fatal(err)
	}
	return lease.Addresses
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
	first, existed, err := s.Acquire(t.Context(), attachment(1), ranges, nil)
	if err != nil || existed {
		t.Fatalf("first: %t, %v", existed, err)
	}
	again, existed, err := s.Acquire(t.Context(), attachment(1), ranges, nil)
	if err != nil || !existed {
		t.Fatalf("again: %t, %v", existed, err)
	}
	if diff := cmp.Diff(first, again, cmpAddrs); diff != "" {
		t.Error(diff)
	}
}

func TestALeaseOutsideTheRangesIsReplaced(t *testing.T) {
	s := open(t, t.TempDir())
	acquire(t, s, 1, prefixes("10.0.0.0/24"))
	got, existed, err := s.Acquire(t.Context(), attachment(1), prefixes("10.0.5.0/24", "fd00::/64"), nil)
	if err != nil || existed {
		t.Fatalf("%t, %v", existed, err)
	}
	if diff := cmp.Diff(addrs("10.0.5.1", "fd00::1"), got.Addresses, cmpAddrs); diff != "" {
		t.Error(diff)
	}
	if leases, _ := s.List(); len(leases) != 1 {
		t.Errorf("%d leases, want 1", len(leases))
	}
}

func TestAnExhaustedFamilyLeavesTheOtherUntouched(t *testing.T) {
	s := open(t, t.TempDir())
	ranges := prefixes("10.0.0.0/24", "fd00::/127")
	acquire(t, s, 1, ranges)
	acquire(t, s, 2, ranges)
	if err := s.Available(ranges, nil); !errors.Is(err, ErrExhausted) {
		t.Errorf("Available: %v, want ErrExhausted", err)
	}
	before, _ := os.ReadFile(s.Path())
	if _, _, err := s.Acquire(t.Context(), attachment(3), ranges, nil); !errors.Is(err, ErrExhausted) {
		t.Fatalf("got %v, want ErrExhausted", err)
	}
	after, _ := os.ReadFile(s.Path())
	if diff := cmp.Diff(string(before), string(after)); diff != "" {
		t.Error(diff)
	}
	release(t, s, 1)
	if err := s.Available(ranges, nil); err != nil {
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

func TestAReleasedAddressIsTheLastToComeBack(t *testing.T) {
	dir := t.TempDir()
	ranges := prefixes("10.0.0.0/29") // six addresses
	for n := 1; n <= 5; n++ {
		acquire(t, open(t, dir), n, ranges)
	}
	acquire(t, open(t, dir), 6, ranges)
	for _, n := range []int{1, 5, 2} {
		release(t, open(t, dir), n)
	}
	// The cursor stands at .6, so plain rotation would return .1, .2, .5.
	for i, want := range []string{"10.0.0.1", "10.0.0.5", "10.0.0.2"} {
		got := acquire(t, open(t, dir), 10+i, ranges)
		if diff := cmp.Diff(addrs(want), got, cmpAddrs); diff != "" {
			t.Error(diff)
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

func TestTheMemoryOfReleasedAddressesIsBounded(t *testing.T) {
	st := newState()
	sp, err := newSpace(prefixes("fd00::/64"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := range maxResting + 100 {
		if _, err := st.allocate(attachment(n), sp); err != nil {
			t.Fatal(err)
		}
		st.remove(attachment(n))
	}
	if len(st.Resting) != maxResting {
		t.Errorf("%d resting, want %d", len(st.Resting), maxResting)
	}
}

func TestFindAndListShowWhatIsHeld(t *testing.T) {
	s := open(t, t.TempDir())
	if leases, err := s.List(); err != nil || len(leases) != 0 {
		t.Fatalf("before the first lease: %v, %v", leases, err)
	}
	ranges := prefixes("10.0.0.0/24")
	acquire(t, s, 2, ranges)
	acquire(t, s, 1, ranges)
	want := []Lease{
		{attachment(2), addrs("10.0.0.1")},
		{attachment(1), addrs("10.0.0.2")},
	}
	got, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpAddrs); diff != "" {
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
	if _, _, err := s.Acquire(t.Context(), Attachment{ContainerID: "c"}, prefixes("10.0.0.0/24"), nil); err == nil {
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
	if err := lockByte(f, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := s.Release(ctx, attachment(1)); !errors.Is(err, ErrLocked) {
		t.Errorf("got %v, want ErrLocked", err)
	}
	if _, err := s.List(); err != nil {
		t.Errorf("List waits for the lock: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	// The wait that was given up must not have kept the lock.
	release(t, s, 1)
}

func TestHoldingAnAttachmentDelaysOnlyThatAttachment(t *testing.T) {
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

func TestAnUnusableStateDirectoryIsAnErrorOfEveryChange(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, file)
	if _, _, err := s.Acquire(t.Context(), attachment(1), prefixes("10.0.0.0/24"), nil); err == nil {
		t.Error("Acquire succeeded")
	}
	if _, _, err := s.Release(t.Context(), attachment(1)); err == nil {
		t.Error("Release succeeded")
	}
	if _, err := s.Hold(t.Context(), attachment(1)); err == nil {
		t.Error("Hold succeeded")
	}
	if _, err := s.List(); err == nil {
		t.Error("List succeeded")
	}
	if _, _, err := s.Find(attachment(1)); err == nil {
		t.Error("Find succeeded")
	}
	if err := s.Available(prefixes("10.0.0.0/24"), nil); err == nil {
		t.Error("Available succeeded")
	}
}

func TestRangesThatCannotBeUsedAreRefusedBeforeAnythingIsWritten(t *testing.T) {
	s := open(t, t.TempDir())
	if _, _, err := s.Acquire(t.Context(), attachment(1), nil, nil); err == nil {
		t.Error("Acquire succeeded")
	}
	if err := s.Available(nil, nil); err == nil {
		t.Error("Available succeeded")
	}
	if _, err := os.Stat(filepath.Dir(s.Path())); !os.IsNotExist(err) {
		t.Errorf("the directory was made: %v", err)
	}
}
