package main_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"weft/internal/testnet"
)

const (
	// relayTrain is how many datagrams a relay takes at once. It changes their order
	// within a train only, so that it never waits for a datagram to come.
	relayTrain = 32

	// Of so many datagrams, one is late or comes twice. Both are odd, so that it is
	// not always the same place of a run.
	lateEvery, twiceEvery = 23, 37

	// lateBehind is how many datagrams overtake a late one.
	lateBehind = 3
)

// relay carries datagrams from one node to another, by way of addresses that each of
// them takes for the other's. It mixes them up, and sends them on in runs: the kernel
// of a receiving node joins what it gets too, in whatever order it came.
type relay struct {
	at        *testnet.Namespace
	listener  *net.UDPConn   // where the sending node looks for its peer
	from      netip.Addr     // where the receiving node looks for its peer
	to        netip.AddrPort // the receiving node
	sources   map[uint16]*net.UDPConn
	received  int
	late      atomic.Int64
	twice     atomic.Int64
	forwarded atomic.Int64
}

// startRelays puts relays between two nodes that do not run yet, one for each direction.
func startRelays(t *testing.T, network *testnet.Net, cluster *testnet.Cluster) []*relay {
	t.Helper()
	at, err := network.AddNamespace(t.Context(), "relay")
	if err != nil {
		t.Fatal(err)
	}
	end := testnet.End{Namespace: at, Link: "eth0", Addrs: prefixes("192.168.77.101/24", "192.168.77.102/24")}
	if err := cluster.Segment.Attach(t.Context(), end); err != nil {
		t.Fatal(err)
	}
	var relays []*relay
	nodes := cluster.Nodes()
	for i, node := range nodes {
		peer := nodes[1-i].Entry()
		r := &relay{at: at, from: end.Addrs[1-i].Addr(), to: node.Entry().Endpoint, sources: map[uint16]*net.UDPConn{}}
		relays = append(relays, r)
		if r.listener, err = listenUDP(at, netip.AddrPortFrom(end.Addrs[i].Addr(), r.to.Port())); err != nil {
			t.Fatal(err)
		}
		// A node's peer is where the relay towards that peer will listen.
		peer.Endpoint = netip.AddrPortFrom(r.from, peer.Endpoint.Port())
		if err := node.SetNodes([]testnet.NodeEntry{node.Entry(), peer}); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if err := r.forward(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("the relay to %s ended: %v", r.to, err)
			}
		}()
		t.Cleanup(func() {
			r.listener.Close()
			<-ended
			for _, source := range r.sources {
				source.Close()
			}
		})
	}
	return relays
}

func (r *relay) forward() error {
	in := ipv4.NewPacketConn(r.listener)
	train := make([]ipv4.Message, relayTrain)
	for i := range train {
		train[i].Buffers = [][]byte{make([]byte, 2048)}
	}
	for {
		n, err := in.ReadBatch(train, 0)
		if err != nil {
			return err
		}
		r.forwarded.Add(int64(n))
		if err := r.sendRuns(r.mix(train[:n])); err != nil {
			return err
		}
	}
}

// mix returns the datagrams in the order in which they are sent on.
func (r *relay) mix(train []ipv4.Message) []ipv4.Message {
	var mixed, late []ipv4.Message
	overtaken := 0
	for _, datagram := range train {
		r.received++
		switch {
		case r.received%lateEvery == 0 && late == nil:
			late, overtaken = []ipv4.Message{datagram}, 0
			continue
		case r.received%twiceEvery == 0:
			r.twice.Add(1)
			mixed = append(mixed, datagram)
		}
		mixed = append(mixed, datagram)
		if overtaken++; late != nil && overtaken == lateBehind {
			r.late.Add(1)
			mixed, late = append(mixed, late...), nil
		}
	}
	return append(mixed, late...)
}

// sendRuns sends datagrams of one lane and one size as a run, of which the last may
// be shorter.
func (r *relay) sendRuns(datagrams []ipv4.Message) error {
	for len(datagrams) > 0 {
		first := datagrams[0]
		port := first.Addr.(*net.UDPAddr).Port
		run := make([]byte, 0, 1<<16)
		for len(datagrams) > 0 {
			next := datagrams[0]
			full := len(run)%first.N == 0 && len(run)+next.N <= maxRun
			if !full || next.N > first.N || next.Addr.(*net.UDPAddr).Port != port {
				break
			}
			run = append(run, next.Buffers[0][:next.N]...)
			datagrams = datagrams[1:]
		}
		source, err := r.source(uint16(port))
		if err != nil {
			return err
		}
		if err := sendRun(source, run, first.N, r.to); err != nil {
			return err
		}
	}
	return nil
}

// source returns a socket with the port that the sending node's lane has: the
// receiving node chooses a lane by it.
func (r *relay) source(port uint16) (*net.UDPConn, error) {
	if source, ok := r.sources[port]; ok {
		return source, nil
	}
	source, err := listenUDP(r.at, netip.AddrPortFrom(r.from, port))
	if err == nil {
		r.sources[port] = source
	}
	return source, err
}

// maxRun is the size in bytes of the largest run: an IPv4 packet without its headers.
const maxRun = 65535 - 20 - 8

// sendRun sends the payload in one call as datagrams of the given size, of which the
// last may be shorter (udp(7), UDP_SEGMENT). With size 0 it is one datagram.
func sendRun(from *net.UDPConn, payload []byte, size int, to netip.AddrPort) error {
	if err := setOption(from, unix.SOL_UDP, unix.UDP_SEGMENT, size); err != nil {
		return err
	}
	_, err := from.WriteToUDPAddrPort(payload, to)
	return err
}

func setOption(conn *net.UDPConn, level, option, value int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	controlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) })
	if err := errors.Join(controlErr, err); err != nil {
		return fmt.Errorf("set option %d of level %d to %d: %w", option, level, value, err)
	}
	return nil
}

// listenUDP opens a UDP socket in a namespace, with room for several runs.
func listenUDP(at *testnet.Namespace, addr netip.AddrPort) (conn *net.UDPConn, err error) {
	err = at.Do(func() error {
		if conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr)); err != nil {
			return err
		}
		return setOption(conn, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	})
	return conn, err
}
