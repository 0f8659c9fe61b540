package hostnet

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/family"
	"weft/internal/marks"
)

// sysctl is a sysctl, named as in sysctl(8), and the value that it must have.
type sysctl struct{ name, value string }

// tunSysctls are what the TUN device needs before it is brought up
// (kernel: Documentation/networking/ip-sysctl.rst).
func tunSysctls(n Network) []sysctl {
	tun := SysctlElement(n.TUN)
	// Loose: a packet may come from a peer's underlay address, whose route back leads
	// through the underlay. The larger of this and conf.all holds, so it is never
	// strict, whatever the node's default is.
	settings := []sysctl{{"net.ipv4.conf." + tun + ".rp_filter", "2"}}
	if _, err := os.Stat(sysctlPath("net.ipv6.conf." + tun)); err == nil || n.uses(family.IPv6) {
		settings = append(settings,
			// No link-local address, hence no router solicitations and no listener
			// reports from it.
			sysctl{"net.ipv6.conf." + tun + ".addr_gen_mode", "1"},
			// No pod of another node may configure this one.
			sysctl{"net.ipv6.conf." + tun + ".accept_ra", "0"},
		)
	}
	if n.uses(family.IPv6) {
		settings = append(settings, sysctl{"net.ipv6.conf." + tun + ".disable_ipv6", "0"})
	}
	return settings
}

// routerSysctls are what makes the node a router for the families that n uses.
func routerSysctls(n Network) (settings []sysctl) {
	if n.uses(family.IPv4) {
		settings = append(settings,
			sysctl{"net.ipv4.ip_forward", "1"},
			// Turning the former on sets it too; but it may have been on already when the
			// device was made, by a default that is off. IPv6 asks the former only.
			sysctl{"net.ipv4.conf." + SysctlElement(n.TUN) + ".forwarding", "1"})
	}
	if n.uses(family.IPv6) {
		settings = append(settings, sysctl{forwarding6, "1"})
	}
	return settings
}

const forwarding6 = "net.ipv6.conf.all.forwarding"

// WrongSysctls returns the sysctls that are not as n, which has been applied, needs them; an
// error with the remedy for each. It changes nothing.
func WrongSysctls(n Network) []error {
	var wrong []error
	for _, s := range append(tunSysctls(n), routerSysctls(n)...) {
		held, err := ReadSysctl(s.name)
		if err == nil && held != s.value {
			err = s.wrong(held)
		}
		if err != nil {
			wrong = append(wrong, err)
		}
	}
	return wrong
}

// wrong is what to do about another value.
func (s sysctl) wrong(held string) error {
	return fmt.Errorf("sysctl %s must be %s and is %s: set it on the host (sysctl -w %s=%s) or make /proc/sys writable", s.name, s.value, held, s.name, s.value)
}

// setTUNSysctls sets what the TUN device needs before it is brought up.
func (k *kernel) setTUNSysctls(n Network) error {
	var errs []error
	for _, s := range tunSysctls(n) {
		errs = append(errs, k.setSysctl(s))
	}
	return errors.Join(errs...)
}

// enableForwarding makes the node a router for the families that n uses.
func (k *kernel) enableForwarding(n Network) error {
	var errs []error
	for _, s := range routerSysctls(n) {
		if s.name == forwarding6 {
			errs = append(errs, k.enableForwarding6(n.TUN))
			continue
		}
		errs = append(errs, k.setSysctl(s))
	}
	return errors.Join(errs...)
}

// enableForwarding6 turns IPv6 forwarding on. With it the kernel stops listening to
// router advertisements where accept_ra is 1 and withdraws the default routes they
// brought, so interfaces that listen now get 2 first, which means "even so".
func (k *kernel) enableForwarding6(tun string) error {
	if on, err := ReadSysctl(forwarding6); err != nil || on == "1" {
		return err
	}
	links, err := k.LinkList()
	if err != nil {
		return fmt.Errorf("list the interfaces: %w", err)
	}
	for _, link := range links {
		attrs := link.Attrs()
		// A pod must never be this node's router.
		if attrs.Name == tun || attrs.Group == marks.PodLinkGroup {
			continue
		}
		conf := "net.ipv6.conf." + SysctlElement(attrs.Name)
		forwarding, err := ReadSysctl(conf + ".forwarding")
		if errors.Is(err, fs.ErrNotExist) {
			continue // the interface does not speak IPv6, or is gone
		}
		if err != nil {
			return err
		}
		if forwarding == "0" {
			if err := k.acceptRouters(conf); err != nil {
				return err
			}
		}
	}
	return k.setSysctl(sysctl{forwarding6, "1"})
}

// acceptRouters has the interface with the sysctls conf listen to router advertisements even if
// it forwards, unless it never does, speaks no IPv6, or is gone.
func (k *kernel) acceptRouters(conf string) error {
	acceptRA, err := ReadSysctl(conf + ".accept_ra")
	if errors.Is(err, fs.ErrNotExist) || err == nil && acceptRA != "1" {
		return nil
	}
	if err != nil {
		return err
	}
	return k.setSysctl(sysctl{conf + ".accept_ra", "2"})
}

// IsNIC says whether routers may be on the other side of a link: a card, or what is made of
// cards.
func IsNIC(link netlink.Link) bool {
	if link.Attrs().Flags&net.FlagLoopback != 0 || link.Attrs().Group == marks.PodLinkGroup {
		return false
	}
	switch link.Type() {
	case "device", "bond", "team", "vlan": // "device": what has no kind
		return true
	}
	return false
}

// heedRouters has NICs that have appeared since the last call listen to router advertisements
// where they would if the node did not forward. A value set afterwards stays.
func (h *Host) heedRouters(k *kernel, n Network) error {
	first := h.nics == nil
	appeared := h.events.nics.Swap(false)
	if !n.uses(family.IPv6) || !first && !appeared {
		return nil
	}
	links, err := k.LinkList()
	if err != nil {
		return fmt.Errorf("list the interfaces: %w", err)
	}
	nics := map[int]bool{}
	for _, link := range links {
		attrs := link.Attrs()
		if !h.events.isNIC(link) || attrs.Name == n.TUN {
			continue
		}
		nics[attrs.Index] = true
		if first || h.nics[attrs.Index] {
			continue
		}
		if err := k.acceptRouters("net.ipv6.conf." + SysctlElement(attrs.Name)); err != nil {
			h.log.Warn("interface ignores routers", "interface", attrs.Name, "error", err)
		}
	}
	h.nics = nics
	return nil
}

// setSysctl writes a sysctl unless it has its value already, so that a read-only
// /proc/sys does no harm where the host has been prepared.
func (k *kernel) setSysctl(s sysctl) error {
	held, err := ReadSysctl(s.name)
	if err != nil {
		return err
	}
	if held == s.value {
		return nil
	}
	if err := os.WriteFile(sysctlPath(s.name), []byte(s.value), 0); err != nil {
		return fmt.Errorf("%w: %w", s.wrong(held), err)
	}
	k.changes.replaced++
	return nil
}

// ReadSysctl returns the value of a sysctl named as in sysctl(8), in the network namespace of
// the calling thread.
func ReadSysctl(name string) (string, error) {
	data, err := os.ReadFile(sysctlPath(name))
	if err != nil {
		return "", fmt.Errorf("read sysctl %s: %w", name, err)
	}
	return strings.TrimSpace(string(data)), nil
}

// sysctlPath returns the file of a sysctl named as in sysctl(8): elements are
// separated by dots, and a dot within an element is written as a slash.
func sysctlPath(name string) string {
	return filepath.Join(sysctlRoot(), strings.NewReplacer(".", "/", "/", ".").Replace(name))
}

// hostSysctls is where a container may have a mount of the host's /proc/sys/net (in net).
const hostSysctls = "/host/proc/sys"

// sysctlRoot returns the folder with the kernel's sysctls: one that can be written, if there is one.
// Container runtimes mount /proc/sys read-only. Network sysctls are those of the process's network
// namespace in every mount.
var sysctlRoot = sync.OnceValue(func() string {
	const some = "/net/ipv4/ip_forward"
	if errors.Is(unix.Access("/proc/sys"+some, unix.W_OK), unix.EROFS) && unix.Access(hostSysctls+some, unix.W_OK) == nil {
		return hostSysctls
	}
	return "/proc/sys"
})

// SysctlElement returns an interface's name as an element of a sysctl's name.
func SysctlElement(ifname string) string { return strings.ReplaceAll(ifname, ".", "/") }
