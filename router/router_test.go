package router_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/drop"
	"weft/encap"
	"weft/encap/vxlan"
	"weft/encap/vxlan/vxlantest"
	"weft/fib"
	"weft/packet"
	"weft/packet/packettest"
	"weft/peer"
	"weft/router"
	"weft/router/tun/tuntest"
)

func node(name, endpoint string, prefixes ...string) *peer.Peer {
	p := &peer.Peer{Name: name, Endpoint: netip.MustParseAddrPort(endpoint), VTEPMAC: peer.DeriveMAC(name)}
	for _, prefix := range prefixes {
		p.Prefixes = append(p.Prefixes, netip.MustParsePrefix(prefix))
	}
	return p
}

var (
	node1 = node("node1", "192.168.77.1:9338", "10.244.1.0/24", "fd00:244:1::/64", "192.168.77.1/32")
	node2 = node("node2", "192.168.77.2:9338", "10.244.2.0/24", "fd00:244:2::/64", "192.168.77.2/32")
	node3 = node("node3", "192.168.77.3:9338", "10.244.3.0/24", "fd00:244:3::/64", "192.168.77.3/32")
)

func udp(from, to string) []byte {
	return packettest.UDP(netip.MustParseAddr(from), netip.MustParseAddr(to), 32)
}

// wire joins the sockets of several nodes in memory.
type wire struct {
	mu     sync.Mutex
	socket map[netip.AddrPort]*socket
}

// socket is one node's end of the wire: a router.Conn.
type socket struct {
	wire   *wire
	addr   netip.AddrPort
	queue  chan datagram
	closed chan struct{}
	once   sync.Once
	refuse func(to *peer.Peer) syscall.Errno

	received []encap.Received
}

type datagram struct {
	payload []byte
	from    netip.AddrPort
}

func newWire() *wire { return &wire{socket: map[netip.AddrPort]*socket{}} }

func (w *wire) attach(addr netip.AddrPort) *socket {
	s := &socket{wire: w, addr: addr, queue: make(chan datagram, 256), closed: make(chan struct{})}
	for _, f := range packet.NewFrames(64, 9100) {
		s.received = append(s.received, encap.Received{Frame: f})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.socket[addr] = s
	return s
}

// inject has the socket at addr receive a datagram.
func (w *wire) inject(to, from netip.AddrPort, payload []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s, ok := w.socket[to]; ok {
		s.queue <- datagram{bytes.Clone(payload), from}
	}
}

func (s *socket) ReadBatch() ([]encap.Received, error) {
	select {
	case d := <-s.queue:
		r := &s.received[0]
		r.Fill(copy(r.Reset(), d.payload))
		r.From = d.from
		return s.received[:1], nil
	case <-s.closed:
		return nil, os.ErrClosed
	}
}

func (s *socket) WriteBatch(batch *encap.Batch) encap.Sent {
	var sent encap.Sent
	for to, payload := range batch.Datagrams() {
		if s.refuse != nil {
			if errno := s.refuse(to); errno != 0 {
				sent.Refused, sent.Err = sent.Refused+1, errno
				continue
			}
		}
		s.wire.inject(to.Endpoint, s.addr, payload)
		sent.Packets, sent.Bytes = sent.Packets+1, sent.Bytes+len(payload)-vxlan.HeaderLen
	}
	return sent
}

func (s *socket) Wake() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// running is a router at work on fakes.
type running struct {
	*router.Router
	queue  *tuntest.Queue
	socket *socket
}

func start(t *testing.T, w *wire, self *peer.Peer, peers ...*peer.Peer) running {
	t.Helper()
	queue, socket := tuntest.NewQueue(), w.attach(self.Endpoint)
	return running{startLane(t, queue, socket, self, peers...), queue, socket}
}

// startLane starts a router of one lane.
func startLane(t *testing.T, queue router.Queue, conn router.Conn, self *peer.Peer, peers ...*peer.Peer) *router.Router {
	t.Helper()
	table, err := fib.New(self, peers)
	if err != nil {
		t.Fatal(err)
	}
	r := router.New([]router.Lane{{Queue: queue, Codec: vxlan.New(1), Conn: conn}}, table)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: Run = %v", self.Name, err)
		}
	})
	return r
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen: %s", what)
		}
	}
}

func TestPacketsReachTheOwningNode(t *testing.T) {
	w := newWire()
	n1 := start(t, w, node1, node2, node3)
	n2, n3 := start(t, w, node2, node1, node3), start(t, w, node3, node1, node2)
	to2, to3 := udp("10.244.1.5", "10.244.2.5"), udp("fd00:244:1::5", "fd00:244:3::5")
	toNode2, fromNode1 := udp("10.244.1.5", "192.168.77.2"), udp("192.168.77.1", "10.244.2.5")
	n1.queue.Inject(to2, to3, toNode2, fromNode1)

	eventually(t, "all packets are written", func() bool { return len(n2.queue.Written()) == 3 && len(n3.queue.Written()) == 1 })
	for i, want := range [][]byte{to2, toNode2, fromNode1} {
		if got := n2.queue.Written()[i]; !bytes.Equal(got, want) {
			t.Errorf("node2 got %x, want %x", got, want)
		}
	}
	if got := n3.queue.Written()[0]; !bytes.Equal(got, to3) {
		t.Errorf("node3 got %x, want %x", got, to3)
	}
	var bytesSent uint64
	for _, b := range [][]byte{to2, to3, toNode2, fromNode1} {
		bytesSent += uint64(len(b))
	}
	eventually(t, "the packets are counted at both ends", func() bool {
		return n1.Stats().Outbound == router.Traffic{Packets: 4, Bytes: bytesSent} && n1.Lanes()[0] == n1.Stats() &&
			n2.Stats().Inbound.Packets == 3 && n3.Stats().Inbound.Packets == 1
	})
}

// TestCountersGoOn: those of each lane.
func TestCountersGoOn(t *testing.T) {
	lanes := make([]router.Lane, 2)
	for i := range lanes {
		lanes[i].Queue = tuntest.NewQueue()
	}
	before := []router.Stats{{Outbound: router.Traffic{Packets: 3, Bytes: 300, SuperPackets: 1}}, {Inbound: router.Traffic{Packets: 2, Bytes: 20}}}
	before[0].Drops[drop.NoRoute], before[1].Drops[drop.UnknownIndex] = 4, 5
	r := router.New(lanes, nil)
	r.Restore(append(before, router.Stats{})) // of a lane that this one does not have
	if got := r.Lanes(); !slices.Equal(got, before) {
		t.Errorf("%+v, want %+v", got, before)
	}
}

func TestOutboundPacketsAreDroppedUnderTheirReason(t *testing.T) {
	w := newWire()
	n1, n2 := start(t, w, node1, node2), start(t, w, node2, node1)
	for _, tc := range []struct {
		name   string
		packet []byte
		want   drop.Reason
	}{
		{"nothing", nil, drop.Malformed},
		{"no IP", []byte{0, 1, 2, 3}, drop.Malformed},
		{"a foreign source", udp("10.244.2.5", "10.244.2.6"), drop.SourceNotLocal},
		{"a source outside the cluster", udp("8.8.8.8", "10.244.2.6"), drop.SourceNotLocal},
		{"an unowned destination", udp("10.244.1.5", "10.244.9.9"), drop.NoRoute},
		{"a multicast destination", udp("10.244.1.5", "224.0.0.1"), drop.NoRoute},
		{"a destination on this node", udp("10.244.1.5", "10.244.1.6"), drop.DestinationLocal},
	} {
		before := n1.Stats().Drops[tc.want]
		n1.queue.Inject(tc.packet)
		eventually(t, tc.name+" counts as "+tc.want.String(), func() bool { return n1.Stats().Drops[tc.want] == before+1 })
	}
	if n1.Stats().Outbound.Packets != 0 || len(n2.queue.Written()) != 0 {
		t.Error("a dropped packet was sent")
	}
}

func TestInboundDropsHaveReasonsNoAnswers(t *testing.T) {
	w := newWire()
	n2 := start(t, w, node2, node1, node3)
	sniffer := map[*peer.Peer]*socket{node1: w.attach(node1.Endpoint), node3: w.attach(node3.Endpoint)}
	good := vxlantest.Datagram(udp("10.244.1.5", "10.244.2.5"), node1, node2)
	stranger := netip.MustParseAddrPort("192.168.77.99:9338")
	for _, tc := range []struct {
		name    string
		from    netip.AddrPort
		payload []byte
		want    drop.Reason
	}{
		{"a non-peer's datagram", stranger, good, drop.UnknownPeer},
		{"garbage", node1.Endpoint, bytes.Repeat([]byte{0xa5}, 200), drop.BadHeader},
		{"an empty datagram", node1.Endpoint, nil, drop.Truncated},
		{"truncated headers", node1.Endpoint, good[:20], drop.Truncated},
		{"a truncated packet", node1.Endpoint, good[:len(good)-1], drop.Malformed},
		{"headers without a packet", node1.Endpoint, good[:22], drop.Malformed},
		{"another peer's source", node3.Endpoint, good, drop.SourceNotPeer},
		{"this node's own source", node1.Endpoint, vxlantest.Datagram(udp("10.244.2.5", "10.244.2.6"), node1, node2), drop.SourceNotPeer},
		{"a source that no node has", node1.Endpoint, vxlantest.Datagram(udp("1.2.3.4", "10.244.2.6"), node1, node2), drop.SourceNotPeer},
		{"a loopback source", node1.Endpoint, vxlantest.Datagram(udp("127.0.0.1", "10.244.2.6"), node1, node2), drop.SourceNotPeer},
		{"another node's pod", node1.Endpoint, vxlantest.Datagram(udp("10.244.1.5", "10.244.3.5"), node1, node2), drop.DestinationNotLocal},
		{"a destination outside the cluster", node1.Endpoint, vxlantest.Datagram(udp("10.244.1.5", "8.8.8.8"), node1, node2), drop.DestinationNotLocal},
		{"a loopback destination", node1.Endpoint, vxlantest.Datagram(udp("10.244.1.5", "127.0.0.1"), node1, node2), drop.DestinationNotLocal},
		{"a multicast destination", node1.Endpoint, vxlantest.Datagram(udp("fd00:244:1::5", "ff02::1"), node1, node2), drop.DestinationNotLocal},
	} {
		before := n2.Stats().Drops[tc.want]
		w.inject(node2.Endpoint, tc.from, tc.payload)
		eventually(t, tc.name+" counts as "+tc.want.String(), func() bool { return n2.Stats().Drops[tc.want] == before+1 })
	}
	if got := n2.queue.Written(); len(got) != 0 {
		t.Errorf("a pod was handed %x", got)
	}
	for peer, s := range sniffer {
		if len(s.queue) != 0 {
			t.Errorf("%s was answered", peer.Name)
		}
	}
}

func TestUnreachablePeerLosesOnlyItsPackets(t *testing.T) {
	w := newWire()
	n1 := start(t, w, node1, node2, node3)
	n3 := start(t, w, node3, node1, node2)
	for errno, want := range map[syscall.Errno]drop.Reason{
		unix.EHOSTUNREACH: drop.Unreachable,
		unix.ENETUNREACH:  drop.Unreachable,
		unix.EMSGSIZE:     drop.TooBig,
		unix.EPERM:        drop.SendRefused,
		unix.ENOBUFS:      drop.SendQueueFull,
		unix.ENOMEM:       drop.SendFailed,
	} {
		arrived, dropped := len(n3.queue.Written()), n1.Stats().Drops[want]
		n1.socket.refuse = func(to *peer.Peer) syscall.Errno {
			if to == node2 {
				return errno
			}
			return 0
		}
		lost, kept := udp("10.244.1.5", "10.244.2.5"), udp("10.244.1.5", "10.244.3.5")
		n1.queue.Inject(lost, kept, lost, lost, kept)
		eventually(t, errno.Error(), func() bool {
			return len(n3.queue.Written()) == arrived+2 && n1.Stats().Drops[want] == dropped+3
		})
	}
}

func TestRefusedPacketStopsNoOther(t *testing.T) {
	w := newWire()
	n1, n2 := start(t, w, node1, node2), start(t, w, node2, node1)
	bad := udp("10.244.1.5", "10.244.2.66")
	n2.queue.Refuse = func(b []byte) bool { return bytes.Equal(b, bad) }
	n1.queue.Inject(udp("10.244.1.5", "10.244.2.5"), bad, udp("10.244.1.5", "10.244.2.7"))
	eventually(t, "two arrive and one is counted", func() bool {
		return len(n2.queue.Written()) == 2 && n2.Stats().Drops[drop.WriteRefused] == 1
	})
}

func TestAPublishedTableCountsFromTheNextBatchOn(t *testing.T) {
	w := newWire()
	n1, n3 := start(t, w, node1, node2), start(t, w, node3, node1)
	n1.queue.Inject(udp("10.244.1.5", "10.244.3.5"))
	eventually(t, "node3 is not known yet", func() bool { return n1.Stats().Drops[drop.NoRoute] == 1 })

	table, err := fib.New(node1, []*peer.Peer{node2, node3})
	if err != nil {
		t.Fatal(err)
	}
	n1.Publish(table)
	n1.queue.Inject(udp("10.244.1.5", "10.244.3.5"))
	eventually(t, "node3 is reached", func() bool { return len(n3.queue.Written()) == 1 })
}

func TestRunEndsWithAnErrorWhenTheDeviceIsGone(t *testing.T) {
	table, err := fib.New(node1, nil)
	if err != nil {
		t.Fatal(err)
	}
	queue := tuntest.NewQueue()
	r := router.New([]router.Lane{{Queue: queue, Codec: vxlan.New(1), Conn: newWire().attach(node1.Endpoint)}}, table)
	done := make(chan error)
	go func() { done <- r.Run(context.Background()) }()
	queue.Close()
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Run = %v, want os.ErrClosed", err)
	}
}
