package pods

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/pkg/ns"

	"weft/benchmarks/system"
	"weft/internal/testnet"
)

// verify checks that every pod has an address of each family that no other has, that it
// has the MTU, and that some of them can be reached from the node and from another pod.
func (b *batch) verify(ctx context.Context) error {
	holders := map[netip.Addr]string{}
	for _, p := range b.pods {
		addrs, err := p.addrs()
		if err != nil {
			return fmt.Errorf("verify %s of %s: %w", p.id, p.node.System, err)
		}
		for _, a := range addrs {
			if other, taken := holders[a]; taken {
				return fmt.Errorf("%s gave %s to %s and to %s", p.node.System, a, other, p.id)
			}
			holders[a] = p.id
		}
	}
	first := b.pods[0]
	for _, p := range []*pod{b.pods[len(b.pods)/2], b.pods[len(b.pods)-1]} {
		if err := p.verifyReached(ctx, first); err != nil {
			return fmt.Errorf("reach %s of %s: %w", p.id, p.node.System, err)
		}
	}
	return nil
}

// addrs returns the addresses in the result of ADD, once it is sure that the pod has them: one
// of each of the node's ranges.
func (p *pod) addrs() ([]netip.Addr, error) {
	told, err := parseAddrs(p.result)
	if err != nil {
		return nil, err
	}
	var present []string
	err = p.Do(func(ns.NetNS) error {
		link, err := net.InterfaceByName(testnet.PodLink)
		if err != nil {
			return err
		}
		if link.MTU != system.InnerMTU {
			return fmt.Errorf("the MTU is %d, want %d", link.MTU, system.InnerMTU)
		}
		addrs, err := link.Addrs()
		for _, a := range addrs {
			present = append(present, a.(*net.IPNet).IP.String())
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for i, cidr := range podCIDRs {
		if len(told) != len(podCIDRs) || !cidr.Contains(told[i]) || !slices.Contains(present, told[i].String()) {
			return nil, fmt.Errorf("ADD told of %v, the interface has %v, want one of each of %v", told, present, podCIDRs)
		}
	}
	return told, nil
}

// parseAddrs reads the addresses from what ADD printed.
func parseAddrs(printed []byte) ([]netip.Addr, error) {
	var r types100.Result
	if err := json.Unmarshal(printed, &r); err != nil {
		return nil, fmt.Errorf("read the plugin's result: %w", err)
	}
	addrs, err := testnet.ResultAddrs(&r)
	slices.SortFunc(addrs, netip.Addr.Compare) // IPv4 first, as in podCIDRs
	return addrs, err
}

// reachLimit bounds the wait for one connection.
const reachLimit = 5 * time.Second

// verifyReached connects to each of the pod's addresses, from the node and from another
// pod.
func (p *pod) verifyReached(ctx context.Context, other *pod) error {
	addrs, err := parseAddrs(p.result)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, reachLimit)
	defer cancel()
	for _, addr := range addrs {
		var listener net.Listener
		err := p.Do(func(ns.NetNS) (err error) {
			listener, err = new(net.ListenConfig).Listen(ctx, "tcp", netip.AddrPortFrom(addr, 0).String())
			return err
		})
		if err != nil {
			return err
		}
		defer listener.Close()
		dial := func() error {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
			if err != nil {
				return err
			}
			return conn.Close()
		}
		if err := p.node.Do(dial); err != nil {
			return fmt.Errorf("from the node: %w", err)
		}
		if err := other.Do(func(ns.NetNS) error { return dial() }); err != nil {
			return fmt.Errorf("from %s: %w", other.id, err)
		}
	}
	return nil
}
