package system

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"weft/internal/testnet"
)

// Counters are values that only grow, by name, added up over both ends of a path
// unless the name tells one.
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
	// it: a super-packet that nobody had to cut counts as one.
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
	for i := range p.Nodes {
		if err := p.addLinks(i, c); err != nil {
			return nil, err
		}
		if err := addSocketDrops(p.Nodes[i], NodeSocketDrops, c); err != nil {
			return nil, err
		}
		if err := addSocketDrops(p.Pods[i].Namespace, PodSocketDrops, c); err != nil {
			return nil, err
		}
	}
	if p.counters != nil {
		if err := p.counters(ctx, c); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (p *Path) addLinks(node int, c Counters) error {
	n := p.Nodes[node]
	content, err := readNet(n, "dev")
	if err != nil {
		return err
	}
	links, err := parseLinks(content)
	if err != nil {
		return fmt.Errorf("in %s: %w", n.Name(), err)
	}
	for _, name := range []string{underlayLink, p.device} {
		if _, ok := links[name]; !ok {
			return fmt.Errorf("in %s: no link %s", n.Name(), name)
		}
	}
	c[UnderlayPackets] += links[underlayLink].packets
	c[UnderlayBytes] += links[underlayLink].bytes
	c[DevicePackets[node]] += links[p.device].packets
	c[DeviceDrops] += links[p.device].drops
	return nil
}

func addSocketDrops(n *testnet.Namespace, as string, c Counters) error {
	content, err := readNet(n, "snmp")
	if err != nil {
		return err
	}
	drops, err := parseSNMP(content, "Udp", "RcvbufErrors")
	if err != nil {
		return fmt.Errorf("in %s: %w", n.Name(), err)
	}
	c[as] += drops
	return nil
}

// readNet reads a file of /proc/net in the namespace (proc_pid_net(5)).
func readNet(n *testnet.Namespace, file string) (content string, err error) {
	err = n.Do(func() error {
		// /proc/net itself belongs to the process's first thread, which is elsewhere.
		b, err := os.ReadFile("/proc/thread-self/net/" + file)
		content = string(b)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("in %s: read counters: %w", n.Name(), err)
	}
	return content, nil
}

// transmitted is what a link sent.
type transmitted struct{ bytes, packets, drops uint64 }

// parseLinks reads /proc/net/dev: two lines of headings, then for each link its name
// and eight numbers received, eight transmitted.
func parseLinks(content string) (map[string]transmitted, error) {
	links := map[string]transmitted{}
	for line := range strings.Lines(content) {
		name, numbers, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		fields := strings.Fields(numbers)
		if len(fields) < 12 {
			return nil, fmt.Errorf("read /proc/net/dev: %q has too few fields", strings.TrimSpace(line))
		}
		var t transmitted
		for i, to := range map[int]*uint64{8: &t.bytes, 9: &t.packets, 11: &t.drops} {
			value, err := strconv.ParseUint(fields[i], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("read /proc/net/dev: %w", err)
			}
			*to = value
		}
		links[strings.TrimSpace(name)] = t
	}
	return links, nil
}

// parseSNMP reads one value of /proc/net/snmp: pairs of lines that begin alike, names
// in the first and values in the second.
func parseSNMP(content, protocol, name string) (uint64, error) {
	var names []string
	for line := range strings.Lines(content) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != protocol+":" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i := range names {
			if names[i] == name && i < len(fields) {
				return strconv.ParseUint(fields[i], 10, 64)
			}
		}
	}
	return 0, fmt.Errorf("read /proc/net/snmp: no %s %s", protocol, name)
}
