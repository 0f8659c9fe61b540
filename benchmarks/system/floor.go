package system

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"

	"weft/internal/testnet"
)

const (
	floorLink = "floor0"
	floorPort = 7300
)

// floor is the least that a forwarder in user space does, with one thread or two
// (benchmarks/floor): for each packet it calls the kernel to read it, and again to write
// it. A forwarder that moves one packet with a system call cannot be faster than the
// better of the two; one that is faster moves batches, or super-packets.
type floor struct{ threads int }

func (f floor) connect(ctx context.Context, s *site) (*Path, error) {
	p, err := s.kernelNodes(ctx)
	if err != nil {
		return nil, err
	}
	p.device = floorLink
	for i, n := range p.Nodes {
		if err := f.start(ctx, s, n, i); err != nil {
			return nil, err
		}
		err := n.ExecAll(ctx,
			fmt.Sprintf("ip link set %s mtu %d up", floorLink, InnerMTU),
			fmt.Sprintf("ip route add %s dev %s", podCIDR[1-i], floorLink))
		if err != nil {
			return nil, err
		}
	}
	return p, nil
}

// start starts the program in a node, and returns when its device exists.
func (f floor) start(ctx context.Context, s *site, n *testnet.Namespace, node int) error {
	name := fmt.Sprintf("node%d", node+1)
	var service *testnet.Service
	ready := func(context.Context) error {
		log, err := service.Logs()
		if err == nil && !strings.Contains(log, "ready\n") {
			err = errors.New("it has not said so")
		}
		return err
	}
	service = s.net.AddService("floor on "+name, filepath.Join(s.net.Dir(), name+"-floor.log"), ready, func() (*exec.Cmd, error) {
		return n.Command(context.Background(), s.programs.Floor, floorLink,
			floorEndpoint(node), floorEndpoint(1-node), fmt.Sprint(f.threads)), nil
	})
	return service.Start(ctx)
}

func floorEndpoint(node int) string {
	return netip.AddrPortFrom(underlay[node].Addr(), floorPort).String()
}
