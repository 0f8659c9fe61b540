package wiring

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// setting is one of the kernel's settings of one interface (ip-sysctl.rst).
type setting struct {
	// name is its path below sysctlRoot.
	name, value string
	// needed: without it the pod has no connectivity.
	needed bool
}

// hostSettings of the host side. They make it independent of what the distribution sets
// for new interfaces. Strict rp_filter keeps a pod from speaking with an address that is
// routed elsewhere. The kernel makes the host side no address of its own: fe80::1 is there.
func (w *Wiring) hostSettings() []setting {
	v4, v6 := "ipv4/conf/"+w.HostName, "ipv6/conf/"+w.HostName
	settings := []setting{
		{v4 + "/rp_filter", "1", false},
		{v6 + "/accept_ra", "0", false},
		{v6 + "/addr_gen_mode", "1", false},
	}
	if slices.ContainsFunc(w.Addresses, netip.Addr.Is4) {
		settings = append(settings, setting{v4 + "/forwarding", "1", true})
	}
	if slices.ContainsFunc(w.Addresses, netip.Addr.Is6) {
		settings = append(settings,
			setting{v6 + "/disable_ipv6", "0", true},
			setting{v6 + "/forwarding", "1", false})
	}
	return settings
}

// podSettings of the pod's side. A pod's only router is its node. No other host is on the
// link that could have one of its addresses, so it need not wait a second to find out.
func (w *Wiring) podSettings() []setting {
	v6 := "ipv6/conf/" + w.PodName
	settings := []setting{
		{v6 + "/accept_ra", "0", false},
		{v6 + "/accept_dad", "0", false},
	}
	if slices.ContainsFunc(w.Addresses, netip.Addr.Is6) {
		settings = append(settings,
			setting{v6 + "/disable_ipv6", "0", true},
			// A pod's packets to itself pass its loopback device, whichever address it uses.
			setting{"ipv6/conf/lo/disable_ipv6", "0", false})
	}
	return settings
}

// sysctlRoot is where the kernel's network settings are.
const sysctlRoot = "/proc/sys/net"

// apply writes settings below root, for the network namespace of the calling thread.
// One that has its value already is as good as written. One that is not needed may be
// out of reach: /proc is read-only in some containers, and IPv6 absent in some kernels.
func apply(root string, settings []setting) error {
	for _, s := range settings {
		path := filepath.Join(root, s.name)
		err := os.WriteFile(path, []byte(s.value), 0)
		if err == nil {
			continue
		}
		if current, readErr := os.ReadFile(path); readErr == nil && strings.TrimSpace(string(current)) == s.value {
			continue
		}
		if s.needed || !outOfReach(err) {
			return fmt.Errorf("set %s to %s: %w", s.name, s.value, err)
		}
	}
	return nil
}

func outOfReach(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EROFS)
}
