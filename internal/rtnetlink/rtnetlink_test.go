package rtnetlink

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestADumpThatWasInterruptedIsRepeated(t *testing.T) {
	calls := 0
	items, err := Dump(func() ([]int, error) {
		if calls++; calls < 3 {
			return nil, netlink.ErrDumpInterrupted
		}
		return []int{1}, nil
	})
	if err != nil || len(items) != 1 || calls != 3 {
		t.Errorf("%v, %v after %d calls", items, err, calls)
	}
	if _, err := Dump(func() ([]int, error) { return nil, netlink.ErrDumpInterrupted }); err == nil {
		t.Error("a list that never is whole was taken")
	}
	if _, err := Dump(func() ([]int, error) { return nil, unix.EPERM }); err == nil {
		t.Error("an error was lost")
	}
}

func TestAKernelWithoutIPv6HasNothingToList(t *testing.T) {
	if items, err := Dump(func() ([]int, error) { return nil, unix.EAFNOSUPPORT }); len(items) != 0 || err != nil {
		t.Errorf("%v, %v", items, err)
	}
}

func TestPrefixesSurviveTheOtherType(t *testing.T) {
	for _, text := range []string{"10.244.1.0/24", "10.244.1.7/32", "0.0.0.0/0", "fd00:244::/48", "::/0"} {
		p := netip.MustParsePrefix(text)
		if got := Prefix(IPNet(p)); got != p {
			t.Errorf("%s came back as %s", p, got)
		}
	}
	if got := Prefix(nil); got.IsValid() {
		t.Errorf("nil became %s", got)
	}
	if got := HostNet(netip.MustParseAddr("fd00::1")).String(); got != "fd00::1/128" {
		t.Errorf("fd00::1 became %s", got)
	}
}
