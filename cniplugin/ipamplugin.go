package cniplugin

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"weft/internal/nodefile"
	"weft/internal/rtnetlink"
	"weft/ipam"
)

// IPAMFuncs returns the operations of weft-ipam: weft's leases as an IPAM plugin, for main
// plugins other than weft-cni. It wires nothing; what becomes of an address is the main
// plugin's affair.
func (p *Plugin) IPAMFuncs() skel.CNIFuncs {
	coded := func(f func(*skel.CmdArgs) error) func(*skel.CmdArgs) error {
		return func(args *skel.CmdArgs) error { return cniError(f(args)) }
	}
	return skel.CNIFuncs{
		Add: coded(p.ipamAdd), Del: coded(p.ipamDel), Check: coded(p.ipamCheck), GC: p.GC, Status: coded(p.ipamStatus),
	}
}

// ipamAdd leases addresses. Repeated for the same attachment it gives the same ones: the
// main plugin may have been killed before it used them.
func (p *Plugin) ipamAdd(args *skel.CmdArgs) error {
	req, err := parseRequest(args)
	if err != nil {
		return err
	}
	n, err := req.conf.addressing()
	if err != nil {
		return err
	}
	if len(req.conf.IPAM.Ranges) == 0 { // as weft-cni's ADD
		if _, err := readGuarded(req.conf.RunDir); err != nil {
			return withCode(types.ErrTryAgainLater, err)
		}
	}
	store, err := req.conf.leases()
	if err != nil {
		return err
	}
	ctx, cancel := p.waiting()
	defer cancel()
	lease, err := store.Acquire(ctx, ipam.Lease{Attachment: req.attachment, Addresses: req.wanted, Pod: req.pod, NetNS: req.netns}, n.pool)
	if err != nil {
		return err
	}
	result := &types100.Result{CNIVersion: types100.ImplementedSpecVersion, Routes: req.conf.IPAM.Routes, DNS: req.conf.DNS}
	for _, addr := range lease.Addresses {
		result.IPs = append(result.IPs, n.ipConfig(addr))
	}
	return p.print(req, result)
}

func (p *Plugin) ipamDel(args *skel.CmdArgs) error {
	req, err := parseRequest(args)
	if err != nil {
		return err
	}
	store, err := req.conf.leases()
	if err != nil {
		return err
	}
	ctx, cancel := p.waiting()
	defer cancel()
	_, _, err = store.Release(ctx, req.attachment)
	return err
}

// ipamCheck compares the lease with prevResult.
func (p *Plugin) ipamCheck(args *skel.CmdArgs) error {
	req, err := parseRequest(args)
	if err != nil {
		return err
	}
	result, err := req.conf.prevResult()
	if err != nil {
		return err
	}
	lease, err := req.lease()
	if err != nil {
		return err
	}
	if result == nil {
		return nil
	}
	for _, addr := range lease.Addresses {
		if !slices.ContainsFunc(result.IPs, func(ip *types100.IPConfig) bool { return addrOf(ip.Address.IP) == addr }) {
			return withCode(CodeIncomplete, fmt.Errorf("%s: %s is leased, but not in prevResult", req.attachment, addr))
		}
	}
	return nil
}

func (p *Plugin) ipamStatus(args *skel.CmdArgs) error {
	conf, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	n, err := conf.addressing()
	if errors.Is(err, nodefile.ErrAbsent) {
		return withCode(types.ErrLimitedConnectivity, err)
	}
	if err != nil {
		return err
	}
	store, err := conf.leases()
	if err != nil {
		return err
	}
	return available(store, n.pool)
}

// addressing is where weft-ipam's addresses come from.
type addressing struct {
	pool    ipam.Pool
	subnets []rangeConfig
}

// addressing returns the ranges that the configuration names, or those of this node's
// pods. A subnet's gateway, its first address unless another is named, is never given out.
func (c *config) addressing() (addressing, error) {
	if len(c.IPAM.Ranges) == 0 {
		node, err := nodefile.Read(c.RunDir)
		if err != nil {
			return addressing{}, withCode(types.ErrTryAgainLater, fmt.Errorf("ipam has no ranges, and %w", err))
		}
		n := addressing{pool: NodePool(node)}
		for _, cidr := range node.PodCIDRs {
			n.add(rangeConfig{Subnet: cidr})
		}
		return n, nil
	}
	n := addressing{pool: ipam.Pool{Cooldown: defaultCooldown}}
	for _, set := range c.IPAM.Ranges {
		var ranges []ipam.Range
		for _, r := range set {
			if !r.Subnet.IsValid() {
				return addressing{}, invalid("ipam.ranges: a range has no subnet")
			}
			ranges = append(ranges, ipam.Range{Subnet: r.Subnet, First: r.RangeStart, Last: r.RangeEnd})
			n.add(r)
		}
		n.pool.Sets = append(n.pool.Sets, ranges)
	}
	for _, text := range c.IPAM.Reserved {
		prefix, err := parsePrefix(text)
		if err != nil {
			return addressing{}, invalid("ipam.reserved: %w", err)
		}
		n.pool.Reserved = append(n.pool.Reserved, prefix)
	}
	if text := cmp.Or(c.IPAM.Cooldown, c.IPAM.Rest); text != "" {
		cooldown, err := time.ParseDuration(text)
		if err != nil || cooldown < 0 {
			return addressing{}, invalid("ipam.cooldown is %q: must be a duration such as 120s", text)
		}
		n.pool.Cooldown = cooldown
	}
	if err := n.pool.Check(); err != nil {
		return addressing{}, invalid("ipam.ranges: %w", err)
	}
	return n, nil
}

// add adds a subnet, and reserves its gateway.
func (n *addressing) add(r rangeConfig) {
	if !r.Gateway.IsValid() {
		r.Gateway = firstOf(r.Subnet)
	}
	n.subnets = append(n.subnets, r)
	n.pool.Reserved = append(n.pool.Reserved, netip.PrefixFrom(r.Gateway, r.Gateway.BitLen()))
}

// defaultCooldown is how long a released address stays unused.
const defaultCooldown = 2 * time.Minute

// firstOf returns the first address of a subnet that a host can have.
func firstOf(subnet netip.Prefix) netip.Addr { return subnet.Masked().Addr().Next() }

// parsePrefix parses a prefix, or an address that stands for itself alone.
func parsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	return netip.ParsePrefix(text)
}

// ipConfig is an address as a main plugin wants it: with its subnet and gateway.
func (n addressing) ipConfig(addr netip.Addr) *types100.IPConfig {
	i := slices.IndexFunc(n.subnets, func(r rangeConfig) bool { return r.Subnet.Contains(addr) })
	subnet := n.subnets[i] // what Acquire returns fits the pool
	return &types100.IPConfig{
		Address: *rtnetlink.IPNet(netip.PrefixFrom(addr, subnet.Subnet.Bits())),
		Gateway: subnet.Gateway.AsSlice(),
	}
}
