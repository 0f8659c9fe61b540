// Package system holds what is compared: ways to connect two pods on two nodes.
//
// Every system gets nodes, a wire and pods of its own, so that all of them stay up
// beside each other and none is in another's way:
//
//	┌──────────── pod1 ┐                         ┌ pod2 ────────────┐
//	│ load   eth0 1420 │                         │ 1420 eth0   load │
//	└─────────┬────────┘                         └────────┬─────────┘
//	          │ veth                                 veth │
//	┌─ node1 ─┴────────┐                         ┌────────┴─ node2 ─┐
//	│ Device           │  192.168.77.1 ── .2     │           Device │
//	│   └──────── eth0 ├─────────────────────────┤ eth0 ────────┘   │
//	└──────────────────┘  veth, MTU 1500,        └──────────────────┘
//	                      offloads as asked
//
// Besides weft these are the kernel's own ways, programs that do the same work, and a floor
// that does less. Start verifies that the path is what its name says before anybody measures
// it.
package system

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"weft/internal/testnet"
)

// InnerMTU is the pods' MTU in bytes with every system: what the largest overhead
// among them, WireGuard's over IPv6, leaves of the wire's 1500.
const InnerMTU = 1420

// netPrefix begins the names of all namespaces.
const netPrefix = "weft-bench"

// Programs says where the programs are that systems run.
type Programs struct {
	// Weft is the folder of weftd and weft-cni, Before that of another version's.
	Weft   string
	Before string

	// WireGuard is the path of wireguard-go, and so on. Floor is that of benchmarks/floor.
	WireGuard          string
	Nebula, NebulaCert string
	Floor              string
}

// System is one way to connect pods.
type System struct {
	// Name is unique.
	Name string

	// Encrypted systems do more, and are reported apart.
	Encrypted bool

	// before has Start use the programs of another version.
	before bool

	// connect builds the nodes, the wire between them and the pods.
	connect func(ctx context.Context, s *site) (*Path, error)
}

// All is every system of which the programs are built together, in the order of tables and
// plots.
func All() []System {
	systems := []System{
		{Name: "direct", connect: connectDirect},
		{Name: "kernel-vxlan", connect: connectKernelVXLAN},
		{Name: "kernel-vxlan/gro", connect: connectKernelVXLANWithGRO},
		{Name: "flannel-vxlan", connect: connectFlannelVXLAN},
		{Name: "floor-1", connect: floor{threads: 1}.connect},
		{Name: "floor-2", connect: floor{threads: 2}.connect},
	}
	systems = append(systems, weftSystems()...)
	return append(systems,
		System{Name: "wireguard-go", Encrypted: true, connect: connectWireGuard},
		System{Name: "nebula", Encrypted: true, connect: connectNebula})
}

// Baseline is the system that the others are compared with.
const Baseline = "kernel-vxlan"

// Start brings the system up on a wire with the given offloads, and verifies it.
// The Path is removed when ctx ends; who wants to see the outcome calls Stop.
func (s System) Start(ctx context.Context, programs Programs, offloads testnet.Offloads) (*Path, error) {
	weft := programs.Weft
	if s.before {
		weft = programs.Before
	}
	net, err := testnet.New(ctx, testnet.Options{Prefix: netPrefix, BinDir: weft})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	path, err := s.connect(ctx, &site{net: net, programs: programs, offloads: offloads})
	if err == nil {
		path.System, path.net = s.Name, net
		err = path.Verify(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", s.Name, offloads, errors.Join(err, net.Close()))
	}
	return path, nil
}

// Features are the offloads of a link, by the names that `ethtool -k` prints.
type Features map[string]bool

// On lists the features that are on, sorted.
func (f Features) On() []string {
	var on []string
	for name, is := range f {
		if is {
			on = append(on, name)
		}
	}
	slices.Sort(on)
	return on
}

// Pod is where load comes from and goes to.
type Pod struct {
	*testnet.Namespace
	Addr netip.Addr
}

// Path is a started System.
type Path struct {
	System string // its name
	Nodes  [2]*testnet.Namespace
	Pods   [2]Pod

	// Features are what the two ends of the wire offload.
	Features [2]Features

	// device is, on each node, the link that pods' packets for the other node leave by.
	device string

	// verify, if not nil, says what is wrong with the path besides what every path is
	// checked for. seen is what the counters gained by pings and a TCP transfer.
	verify func(ctx context.Context, seen Counters) error

	// counters, if not nil, adds the system's own.
	counters func(ctx context.Context, to Counters) error

	net *testnet.Net
}

// Stop removes the nodes and everything in them.
func (p *Path) Stop() error { return p.net.Close() }

// Crashed returns why a daemon of the system has ended, or nil.
func (p *Path) Crashed() error {
	var errs []error
	for _, n := range p.net.Nodes() {
		if err := n.Crashed(); err != nil {
			errs = append(errs, fmt.Errorf("%w\n%s", err, n.LogTail(20)))
		}
	}
	return errors.Join(errs...)
}
