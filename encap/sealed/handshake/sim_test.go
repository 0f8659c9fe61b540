package handshake_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/drop"
	"weft/encap"
	"weft/encap/sealed"
	"weft/encap/sealed/handshake"
	"weft/fib"
	"weft/internal/nodekey"
	"weft/packet"
	"weft/packet/packettest"
	"weft/peer"
)

// sim is an underlay in memory: in a bubble of package synctest hours last a moment.
type sim struct {
	mu    sync.Mutex
	nodes map[netip.AddrPort]*simNode

	// pass decides whether a datagram arrives; nil for all.
	pass func(from, to netip.AddrPort, payload []byte) bool

	// refuse is why the kernel refuses a datagram, or nil.
	refuse func(payload []byte) error
}

// simNode is a daemon's sealed half on a sim.
type simNode struct {
	sim     *sim
	self    *peer.Peer
	peers   *sealed.Peers
	manager *handshake.Manager
	log     *strings.Builder // under lane

	lane    sync.Mutex // held while the lane works
	codec   *sealed.Codec
	table   *fib.Table
	arrived []string
	drops   [drop.Count]int
}

const simLatency = time.Millisecond

// simNodes runs n nodes that know each other, until the test ends.
func simNodes(t *testing.T, n int) (*sim, []*simNode) {
	s := &sim{nodes: map[netip.AddrPort]*simNode{}}
	var nodes []*simNode
	for i := range n {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, s.start(t, i+1, key))
	}
	for _, n := range nodes {
		n.know(nodes...)
	}
	return s, nodes
}

func (s *sim) start(t *testing.T, number int, key ed25519.PrivateKey) *simNode {
	n := &simNode{sim: s, peers: sealed.NewPeers(), log: new(strings.Builder)}
	n.self = &peer.Peer{
		Name:     fmt.Sprintf("node%d", number),
		Endpoint: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, byte(number >> 8), byte(number)}), 9338),
		Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(number >> 8), byte(number), 0}), 24)},
		Key:      nodekey.FingerprintOf(key.Public().(ed25519.PublicKey)),
	}
	out := []io.Writer{lockedWriter{n}}
	if testing.Verbose() {
		out = append(out, t.Output())
	}
	log := slog.New(slog.NewTextHandler(io.MultiWriter(out...), nil)).With("node", n.self.Name)
	var err error
	if n.manager, err = handshake.New(key, 1, n.peers, n, n.self.Endpoint, log); err != nil {
		t.Fatal(err)
	}
	n.codec = sealed.NewCodec(n.peers, n.manager, 0, 1)
	s.mu.Lock()
	s.nodes[n.self.Endpoint] = n
	s.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.manager.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: Run = %v", n.self.Name, err)
		}
	})
	return n
}

type lockedWriter struct{ n *simNode }

func (w lockedWriter) Write(b []byte) (int, error) {
	w.n.lane.Lock()
	defer w.n.lane.Unlock()
	return w.n.log.Write(b)
}

// logged returns how many lines of the log contain text.
func (n *simNode) logged(text string) int {
	n.lane.Lock()
	defer n.lane.Unlock()
	return strings.Count(n.log.String(), text)
}

func (n *simNode) know(nodes ...*simNode) {
	var others []*peer.Peer
	for _, o := range nodes {
		if o != n {
			others = append(others, o.self)
		}
	}
	n.knowPeers(others...)
}

func (n *simNode) knowPeers(others ...*peer.Peer) {
	table, err := fib.New(n.self, others)
	if err != nil {
		panic(err)
	}
	n.manager.Update(n.self, others)
	n.lane.Lock()
	n.table = table
	n.lane.Unlock()
}

// WriteTo implements handshake.Socket.
func (n *simNode) WriteTo(payload []byte, to netip.AddrPort) error {
	payload = append([]byte(nil), payload...)
	n.sim.mu.Lock()
	defer n.sim.mu.Unlock()
	if n.sim.refuse != nil {
		if err := n.sim.refuse(payload); err != nil {
			return err
		}
	}
	from, there := n.self.Endpoint, n.sim.nodes[to]
	if there != nil && (n.sim.pass == nil || n.sim.pass(from, to, payload)) {
		time.AfterFunc(simLatency, func() { there.receive(payload, from) })
	}
	return nil
}

func (s *sim) setPass(pass func(from, to netip.AddrPort, payload []byte) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pass = pass
}

func (n *simNode) receive(payload []byte, from netip.AddrPort) {
	n.lane.Lock()
	defer n.lane.Unlock()
	f := packet.NewFrames(1, 2000)[0]
	f.Fill(copy(f.Reset(), payload))
	r := encap.Received{Frame: f, From: from}
	switch peer, reason := n.codec.Decode(&r, n.table); {
	case peer != nil:
		n.arrived = append(n.arrived, string(r.Packet()[28:]))
	case reason != drop.None:
		n.drops[reason]++
	}
}

// send sends a packet of a pod that holds text to a pod of another node.
func (n *simNode) send(to *peer.Peer, text string) drop.Reason {
	ip := packettest.UDP(pod(n.self), pod(to), len(text))
	copy(ip[28:], text)
	f := packet.NewFrames(1, 2000)[0]
	f.Fill(copy(f.Reset(), ip))
	var out encap.Batch
	n.lane.Lock()
	reason := n.codec.Encode(&out, &f, n.self, to)
	n.lane.Unlock()
	for to, datagram := range out.Datagrams() {
		_ = n.WriteTo(datagram, to.Endpoint)
	}
	return reason
}

// got returns what has arrived since it was last called.
func (n *simNode) got() []string {
	n.lane.Lock()
	defer n.lane.Unlock()
	all := n.arrived
	n.arrived = nil
	return all
}

func (n *simNode) dropped() (all int) {
	n.lane.Lock()
	defer n.lane.Unlock()
	for _, count := range n.drops {
		all += count
	}
	return all
}

func (n *simNode) status(of *simNode) handshake.Status {
	for _, s := range n.manager.Status() {
		if s.Name == of.self.Name {
			return s
		}
	}
	return handshake.Status{}
}
