package system

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"weft/internal/testnet"
)

// Counters are values that only grow, by name, added up over both ends of a path
// unless the name has one.
type Counters map[string]uint64

// Since returns what was gained since before. Counters that gained nothing are absent.
func (c Counters) Since(before Counters) Counters {
	gained := Counters{}
	for name, value := range c {
		if d := value - before[name]; d > 0 {
			gained[name] = d
		}
	}
	return gained
}

// The counters of every path. A system may have more.
const (
	// UnderlayPackets and UnderlayBytes crossed the wire, as the kernel handed them to
	// it: a super-packet that was not cut counts as one.
	UnderlayPackets = "underlay_packets"
	UnderlayBytes   = "underlay_bytes"

	// DeviceDrops did not fit the queue of the system's device.
	DeviceDrops = "device_drops"

	// NodeSocketDrops did not fit the receive buffer of a UDP socket on a node: the
	// overlay's. PodSocketDrops: of one in a pod, the load's.
	NodeSocketDrops = "node_socket_drops"
	PodSocketDrops  = "pod_socket_drops"
)

// DevicePackets were handed to the system's device by the kernel of each node. They are
// not added up: each shows that one direction goes where it should.
var DevicePackets = [2]string{"device_packets_node1", "device_packets_node2"}

// Counters reads the counters of both nodes and pods.
func (p *Path) Counters(ctx context.Context) (Counters, error) {
	c := Counters{}
	for i, n := range p.Nodes {
		if err := n.Do(func() error { return p.addLinks(i, c) }); err != nil {
			return nil, fmt.Errorf("in %s: read counters: %w", n.Name(), err)
		}
		for as, ns := range map[string]*testnet.Namespace{NodeSocketDrops: n, PodSocketDrops: p.Pods[i].Namespace} {
			if err := ns.Do(func() error { return addSocketDrops(as, c) }); err != nil {
				return nil, fmt.Errorf("in %s: read counters: %w", ns.Name(), err)
			}
		}
	}
	if p.counters != nil {
		if err := p.counters(ctx, c); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// thread is this thread in /proc, with the counters of its network namespace: /proc/net is
// that of the process's first thread (proc_pid_net(5)).
func thread() (procfs.Proc, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return procfs.Proc{}, err
	}
	return fs.Thread(os.Getpid(), unix.Gettid())
}

func (p *Path) addLinks(node int, c Counters) error {
	self, err := thread()
	if err != nil {
		return err
	}
	links, err := self.NetDev()
	if err != nil {
		return err
	}
	for _, name := range []string{underlayLink, p.device} {
		if _, ok := links[name]; !ok {
			return fmt.Errorf("no link %s", name)
		}
	}
	c[UnderlayPackets] += links[underlayLink].TxPackets
	c[UnderlayBytes] += links[underlayLink].TxBytes
	c[DevicePackets[node]] += links[p.device].TxPackets
	c[DeviceDrops] += links[p.device].TxDropped
	return nil
}

func addSocketDrops(as string, c Counters) error {
	self, err := thread()
	if err != nil {
		return err
	}
	snmp, err := self.Snmp()
	if err != nil {
		return err
	}
	if snmp.Udp.RcvbufErrors == nil {
		return errors.New("/proc/net/snmp has no RcvbufErrors of UDP")
	}
	c[as] += uint64(*snmp.Udp.RcvbufErrors)
	return nil
}
