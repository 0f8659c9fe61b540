package system

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"weft/internal/testnet"
)

// flannelRules are those that flannel has in nftables
// (https://github.com/flannel-io/flannel/blob/master/pkg/trafficmngr/nftables/nftables.go):
// it accepts what is forwarded from and to pods, and masquerades what leaves the cluster. A
// chain of the type nat has the kernel track every connection.
func flannelRules(podCIDR string) string {
	return strings.NewReplacer("POD", podCIDR, "CLUSTER", clusterCIDR.String()).Replace(`
table ip flannel-ipv4 {
	chain forward {
		type filter hook forward priority filter
		ip saddr CLUSTER accept
		ip daddr CLUSTER accept
	}
	chain postrtg {
		type nat hook postrouting priority srcnat
		meta mark 0x4000 return
		ip saddr POD ip daddr CLUSTER return
		ip saddr CLUSTER ip daddr POD return
		ip saddr != POD ip daddr CLUSTER return
		ip saddr CLUSTER ip daddr != 224.0.0.0/4 masquerade fully-random
		ip saddr != CLUSTER ip daddr CLUSTER masquerade fully-random
	}
}`)
}

// connectFlannelVXLAN is the kernel's VXLAN device as a cluster has it, with flannel's rules.
// The bare device does less than any plugin for Kubernetes needs. Pods are wired by a veth
// pair each, as with every system here, and not by a bridge.
func connectFlannelVXLAN(ctx context.Context, s *site) (*Path, error) {
	p, err := connectKernelVXLAN(ctx, s)
	if err != nil {
		return nil, err
	}
	for i, n := range p.Nodes {
		if _, err := n.Exec(ctx, "nft", flannelRules(podCIDR[i].String())); err != nil {
			return nil, err
		}
	}
	p.verify = func(context.Context, Counters) error {
		return errors.Join(verifyTracking(p.Nodes[0]), verifyTracking(p.Nodes[1]))
	}
	return p, nil
}

// verifyTracking checks that the kernel tracks the connections that pods have had.
func verifyTracking(n *testnet.Namespace) error {
	return n.Do(func() error {
		count, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if err == nil && strings.TrimSpace(string(count)) == "0" {
			err = errors.New("it tracks none")
		}
		if err != nil {
			return fmt.Errorf("count the connections of pods in %s: %w", n.Name(), err)
		}
		return nil
	})
}
