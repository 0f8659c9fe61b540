package cniplugin

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	cniversion "github.com/containernetworking/cni/pkg/version"

	"weft/internal/nodefile"
	"weft/ipam"
)

// ipamConfig is the section ipam. Without a type, or with IPAMType, the addresses are
// weft's own leases. Any other type names a plugin that gives them out, which reads the
// same section.
type ipamConfig struct {
	Type string `json:"type"`

	// Routes are what pods reach through this interface; everything, if there are none.
	Routes []*types.Route `json:"routes"`

	// Ranges are sets of ranges as host-local has them, for weft-ipam alone. Without them
	// the addresses are the node's pods'. What follows goes with them.
	Ranges   [][]rangeConfig `json:"ranges"`
	Reserved []string        `json:"reserved"`
	Cooldown string          `json:"cooldown"`
	Rest     string          `json:"rest"` // Cooldown's former name
}

// rangeConfig is a part of a network's addresses.
type rangeConfig struct {
	Subnet     netip.Prefix `json:"subnet"`
	RangeStart netip.Addr   `json:"rangeStart"`
	RangeEnd   netip.Addr   `json:"rangeEnd"`
	Gateway    netip.Addr   `json:"gateway"`
}

// own reports whether the addresses are weft's own leases.
func (c ipamConfig) own() bool { return c.Type == "" || c.Type == IPAMType || c.Type == Type }

// check refuses what weft-cni can't do. DEL does not ask: whatever the configuration has
// become, a pod must be able to go.
func (c ipamConfig) check() error {
	if c.own() && (len(c.Ranges) > 0 || len(c.Reserved) > 0 || c.Cooldown != "" || c.Rest != "") {
		return invalid("ipam has ranges, reserved or cooldown: weft-cni leases this node's pod CIDRs, as weftd is configured (ipam.reserved, ipam.cooldown)")
	}
	return nil
}

// NodePool is the addresses of a node's pods.
func NodePool(node nodefile.Node) ipam.Pool {
	pool := ipam.Pool{
		Sets:     ipam.ByFamily(node.PodCIDRs),
		Reserved: slices.Clone(node.Reserved),
		Cooldown: time.Duration(node.CooldownSeconds) * time.Second,
	}
	for _, addr := range node.Addresses {
		pool.Reserved = append(pool.Reserved, netip.PrefixFrom(addr, addr.BitLen()))
	}
	return pool
}

// given is what an attachment gets from whoever gives addresses out.
type given struct {
	addresses []netip.Addr
	routes    []*types.Route
	dns       types.DNS
}

// obtain takes the lease of an attachment that has nothing in the kernel.
func (p *Plugin) obtain(req *request, node nodefile.Node, store *ipam.Store) (given, error) {
	ctx, cancel := p.waiting()
	defer cancel()
	lease := ipam.Lease{
		Attachment: req.attachment,
		Addresses:  req.wanted,
		Pod:        req.pod,
		Veth:       hostName(req.attachment),
		NetNS:      req.netns,
	}
	if req.conf.IPAM.own() {
		lease, err := store.Acquire(ctx, lease, NodePool(node))
		return given{lease.Addresses, req.conf.IPAM.Routes, req.conf.DNS}, err
	}
	g, err := delegateAdd(ctx, req.conf, node)
	if err != nil {
		return given{}, err
	}
	lease.Addresses, lease.IPAM, lease.Since = g.addresses, req.conf.IPAM.Type, time.Now().UTC().Truncate(time.Second)
	return g, store.Record(ctx, lease)
}

// delegateAdd has another plugin give out addresses.
func delegateAdd(ctx context.Context, conf *config, node nodefile.Node) (given, error) {
	name := conf.IPAM.Type
	// An ADD that was killed may have left an address there, and most refuse a second one.
	if _, err := conf.delegate(ctx, "DEL", conf.stdin); err != nil {
		return given{}, err
	}
	printed, err := conf.delegate(ctx, "ADD", conf.stdin)
	if err != nil {
		return given{}, err
	}
	result, err := parseResult(printed)
	if err != nil {
		return given{}, withCode(types.ErrDecodingFailure, fmt.Errorf("result of the ipam plugin %s: %w", name, err))
	}
	g := given{routes: result.Routes, dns: conf.DNS}
	if g.dns.IsEmpty() {
		g.dns = result.DNS
	}
	for _, ip := range result.IPs {
		addr := addrOf(ip.Address.IP)
		if !slices.ContainsFunc(node.PodCIDRs, func(c netip.Prefix) bool { return c.Contains(addr) }) || slices.Contains(node.Addresses, addr) {
			return given{}, invalid("the ipam plugin %s returned %s, which is not an address of this node's pods: "+
				"configure it with addresses of %s, without the node's own %s", name, addr, node.PodCIDRs, node.Addresses)
		}
		if slices.ContainsFunc(g.addresses, func(a netip.Addr) bool { return a.Is4() == addr.Is4() }) {
			return given{}, invalid("the ipam plugin %s returned two addresses of one family: %s and %s", name, g.addresses, addr)
		}
		g.addresses = append(g.addresses, addr)
	}
	if len(g.addresses) == 0 {
		return given{}, invalid("the ipam plugin %s returned no address", name)
	}
	return g, nil
}

// parseResult parses what a plugin prints, in whatever version it says.
func parseResult(printed []byte) (*types100.Result, error) {
	version, err := (&cniversion.ConfigDecoder{}).Decode(printed)
	if err != nil {
		return nil, err
	}
	result, err := create.Create(version, printed)
	if err != nil {
		return nil, err
	}
	return types100.NewResultFromResult(result)
}

// giveBack ends the lease of an attachment that has nothing left in the kernel.
func (p *Plugin) giveBack(req *request, store *ipam.Store, was removed) error {
	ctx, cancel := p.waiting()
	defer cancel()
	if !req.conf.IPAM.own() {
		// Without a lease, an ADD may have been killed before it could record one. One of
		// weft's own is from before the configuration was changed.
		lease, ok, err := store.Find(req.attachment)
		if err != nil {
			return err
		}
		if !ok || lease.IPAM != "" {
			if _, err := req.conf.delegate(ctx, "DEL", req.conf.stdin); err != nil {
				return err
			}
		}
	}
	return endLease(ctx, store, req.attachment, was)
}

// endLease gives back what an attachment held whose veth was removed.
func endLease(ctx context.Context, store *ipam.Store, a ipam.Attachment, was removed) error {
	end := store.Release
	if was == incompleteVeth {
		end = store.Cancel
	}
	_, _, err := end(ctx, a)
	return err
}

func addrOf(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}
