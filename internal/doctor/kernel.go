package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"weft/internal/config"
	"weft/internal/hostnet"
)

func checkConfig(_ context.Context, h *host) []Finding {
	if h.ConfigErr != nil {
		return of(Failed, h.ConfigErr.Error())
	}
	return ok("%s: node %s, %s on %s, nodes from %s", h.ConfigPath, h.Config.Node, h.Config.Encapsulation, h.Config.Listen, h.Config.Control.Source)
}

// lacking makes findings of an error of hostnet's, whose introduction the report doesn't need.
func lacking(err error) []Finding {
	return of(Failed, strings.TrimPrefix(err.Error(), hostnet.ErrPrerequisite.Error()+": "))
}

func checkCapability(_ context.Context, h *host) []Finding {
	if h.prerequisites.Capability != nil {
		return fail("this process lacks CAP_NET_ADMIN, as weftd would, and can't look at everything", "run this as root")
	}
	return ok("CAP_NET_ADMIN")
}

func checkKernel(_ context.Context, h *host) []Finding {
	if h.prerequisites.Kernel != nil {
		return lacking(h.prerequisites.Kernel)
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return warn("the kernel's release is unknown: "+err.Error(), "")
	}
	return ok("Linux %s on %s", unix.ByteSliceToString(name.Release[:]), unix.ByteSliceToString(name.Machine[:]))
}

func checkTUN(_ context.Context, h *host) []Finding {
	if h.prerequisites.TUN != nil {
		return lacking(h.prerequisites.TUN)
	}
	has := func(flag uint32) bool { return h.prerequisites.TUNFeatures&flag != 0 }
	switch {
	case h.ConfigErr != nil:
	case h.Config.TUN.Driver != config.DriverWater && !has(unix.IFF_VNET_HDR):
		return fail(fmt.Sprintf("the TUN driver has no virtio-net headers (IFF_VNET_HDR), which tun.driver %s needs", h.Config.TUN.Driver), "write tun.driver: water, or use another kernel")
	case h.Config.Lanes() > 1 && !has(unix.IFF_MULTI_QUEUE):
		return fail(fmt.Sprintf("the TUN driver has one queue only (no IFF_MULTI_QUEUE), and %d lanes need more", h.Config.Lanes()), "write tun.lanes: 1, or use another kernel")
	}
	return ok("/dev/net/tun, virtio-net headers: %t, multi-queue: %t", has(unix.IFF_VNET_HDR), has(unix.IFF_MULTI_QUEUE))
}

func checkNFT(_ context.Context, h *host) []Finding {
	if h.prerequisites.NFT != nil {
		return lacking(h.prerequisites.NFT)
	}
	return ok("nft works")
}

// checkGuardRules has the kernel try all that the guard table needs of nftables.
func checkGuardRules(ctx context.Context, h *host) []Finding {
	if h.prerequisites.NFT != nil {
		return skipped("nft does not work")
	}
	c := h.Config
	err := hostnet.TryRules(ctx, hostnet.Network{TUN: c.TUN.Name, ClusterCIDRs: c.ClusterCIDRs, Port: c.Listen.Port(), MarkMask: c.Host.MarkMask,
		Trusted: c.Guard.Trusted, RandomPorts: c.Egress.RandomPorts})
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return warn("nft did not check the guard table's rules in time", "look for a hanging nft process")
	case err != nil:
		line, _, _ := strings.Cut(strings.TrimSpace(err.Error()), "\n")
		return fail("the kernel or nft refuses the guard table's rules: "+line, "install nftables 1.0.1 or later, and load the kernel's modules nft_fib_inet, nft_ct, nft_limit, nft_masq and nft_socket, or use a kernel that has them")
	}
	return ok("the kernel accepts the guard table's rules")
}
