package rtnetlink

import (
	"fmt"
	"net"
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
	any4 := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)} // as netlink lists a default route
	if got := Prefix(any4); got != netip.MustParsePrefix("0.0.0.0/0") {
		t.Errorf("the default route became %s", got)
	}
	if got := Prefix(nil); got.IsValid() {
		t.Errorf("nil became %s", got)
	}
	if got := HostNet(netip.MustParseAddr("fd00::1")).String(); got != "fd00::1/128" {
		t.Errorf("fd00::1 became %s", got)
	}
}

func TestAttributesEndWhereTheyAreCutShort(t *testing.T) {
	whole := []byte{6, 0, 1, 0, 'a', 'b', 0, 0, 5, 0, 2, 0, 'c', 0, 0, 0}
	for _, tt := range []struct {
		size int
		want string
	}{{16, "1:ab 2:c "}, {13, "1:ab 2:c "}, {12, "1:ab "}, {8, "1:ab "}, {6, "1:ab "}, {5, ""}, {3, ""}, {0, ""}} {
		got := ""
		for kind, value := range Attributes(whole[:tt.size:tt.size]) {
			got += fmt.Sprintf("%d:%s ", kind, value)
		}
		if got != tt.want {
			t.Errorf("the first %d bytes: %q, want %q", tt.size, got, tt.want)
		}
	}
	for range Attributes([]byte{3, 0, 1, 0, 0, 0, 0, 0}) {
		t.Error("an attribute that is smaller than its header")
	}
}
