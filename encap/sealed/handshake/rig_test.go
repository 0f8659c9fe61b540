package handshake_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft/drop"
	"weft/encap"
	"weft/encap/sealed"
	"weft/encap/sealed/handshake"
	"weft/fib"
	"weft/internal/nodekey"
	"weft/internal/testnet"
	"weft/packet"
	"weft/packet/packettest"
	"weft/peer"
)

// node is a daemon's sealed half, on a real socket of the loopback.
type node struct {
	number  int
	self    *peer.Peer
	key     ed25519.PrivateKey
	conn    *encap.Conn
	peers   *sealed.Peers
	manager *handshake.Manager
	codec   *sealed.Codec
	table   atomic.Pointer[fib.Table]
	out     encap.Batch

	arrived chan []byte // packets of pods
	drops   [drop.Count]atomic.Int64

	pause, stop func()
}

var nextSubnet atomic.Int32

// newNodes starts n nodes that do not know each other yet.
func newNodes(t testing.TB, n int, options ...func(*handshake.Manager)) []*node {
	t.Helper()
	subnet := int(nextSubnet.Add(1))
	var nodes []*node
	for i := range n {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, startNode(t, subnet, i+1, key, options...))
	}
	return nodes
}

func startNode(t testing.TB, subnet, number int, key ed25519.PrivateKey, options ...func(*handshake.Manager)) *node {
	t.Helper()
	n := &node{number: number, key: key, arrived: make(chan []byte, 1024)}
	n.self = &peer.Peer{
		Name:     fmt.Sprintf("node%d", number),
		Endpoint: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, byte(subnet), byte(number >> 8), byte(number)}), 9338),
		Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(number >> 8), byte(number), 0}), 24)},
		Key:      nodekey.FingerprintOf(key.Public().(ed25519.PublicKey)),
	}
	conns, err := encap.Listen(t.Context(), n.self.Endpoint, 1, encap.Options{GRO: true, Spread: sealed.SpreadBy()})
	if err != nil {
		t.Fatal(err)
	}
	n.conn = conns[0]
	n.prepare(t, options...)
	n.know()
	n.start(t)
	t.Cleanup(func() { n.stop() })
	return n
}

// prepare makes what there is beside the socket.
func (n *node) prepare(t testing.TB, options ...func(*handshake.Manager)) {
	t.Helper()
	n.peers = sealed.NewPeers()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(t.Output(), nil)).With("node", n.self.Name)
	}
	var err error
	if n.manager, err = handshake.New(n.key, 1, n.peers, n.conn, n.self.Endpoint, log); err != nil {
		t.Fatal(err)
	}
	for _, option := range options {
		option(n.manager)
	}
	n.codec = sealed.NewCodec(n.peers, n.manager, 0, 1)
}

// start begins what pause ends: then what arrives waits in the socket, which stop closes too.
func (n *node) start(t testing.TB) {
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() {
		if err := n.manager.Run(ctx); err != nil {
			t.Errorf("%s: Run = %v", n.self.Name, err)
		}
	})
	tasks.Go(n.receive)
	n.pause = sync.OnceFunc(func() {
		cancel()
		_ = n.conn.Wake()
		tasks.Wait()
	})
	n.stop = sync.OnceFunc(func() {
		n.pause()
		n.conn.Close()
	})
}

// know makes others, without n itself, the peers of n.
func (n *node) know(others ...*peer.Peer) {
	others = slices.DeleteFunc(others, func(p *peer.Peer) bool { return p == n.self })
	table, err := fib.New(n.self, others)
	if err != nil {
		panic(err)
	}
	n.manager.Update(n.self, others)
	n.table.Store(table)
}

// acquaint makes all nodes peers of each other.
func acquaint(nodes ...*node) {
	for _, n := range nodes {
		var all []*peer.Peer
		for _, o := range nodes {
			all = append(all, o.self)
		}
		n.know(all...)
	}
}

// receive is what a lane does inbound.
func (n *node) receive() {
	for {
		received, err := n.conn.ReadBatch()
		if err != nil {
			return
		}
		for i := range received {
			switch peer, reason := n.codec.Decode(&received[i], n.table.Load()); {
			case peer != nil:
				select {
				case n.arrived <- append([]byte(nil), received[i].Packet()...):
				default:
				}
			case reason != drop.None:
				n.drops[reason].Add(1)
			}
		}
	}
}

// send is what a lane does outbound, with a packet that holds text.
func (n *node) send(to *peer.Peer, text string) drop.Reason {
	return n.sendFrom(n.conn, to, text)
}

// sendFrom sends from a socket that may be elsewhere.
func (n *node) sendFrom(conn *encap.Conn, to *peer.Peer, text string) drop.Reason {
	ip := packettest.UDP(pod(n.self), pod(to), len(text))
	copy(ip[28:], text)
	return n.sendIPFrom(conn, to, ip)
}

// sendIP sends a packet of any kind.
func (n *node) sendIP(to *peer.Peer, ip []byte) drop.Reason { return n.sendIPFrom(n.conn, to, ip) }

func (n *node) sendIPFrom(conn *encap.Conn, to *peer.Peer, ip []byte) drop.Reason {
	f := packet.NewFrames(1, 2000)[0]
	f.Fill(copy(f.Reset(), ip))
	n.out.Reset()
	reason := n.codec.Encode(&n.out, &f, n.self, to)
	conn.WriteBatch(&n.out)
	return reason
}

// peerEndpoint is where n takes another node to be.
func (n *node) peerEndpoint(of *node) netip.Addr {
	return n.table.Load().ByKey(of.self.Key).Endpoint.Addr()
}

// pod is one of a node's pods.
func pod(of *peer.Peer) netip.Addr { return of.Prefixes[0].Addr().Next() }

// expect waits for a packet that holds text; others before it are skipped.
func (n *node) expect(t testing.TB, text string) {
	t.Helper()
	for deadline := time.After(testnet.WaitLimit); ; {
		select {
		case ip := <-n.arrived:
			if string(ip[28:]) == text {
				return
			}
		case <-deadline:
			t.Fatalf("%s: %q does not arrive; drops: %s", n.self.Name, text, n.dropped())
		}
	}
}

func (n *node) dropped() (text string) {
	for _, reason := range drop.All() {
		if c := n.drops[reason].Load(); c > 0 {
			text += fmt.Sprintf("%s %d ", reason, c)
		}
	}
	return text
}

// status is what n says of another node.
func (n *node) status(t testing.TB, of *node) handshake.Status {
	t.Helper()
	for _, s := range n.manager.Status() {
		if s.Name == of.self.Name {
			return s
		}
	}
	t.Fatalf("%s does not know %s", n.self.Name, of.self.Name)
	return handshake.Status{}
}

// upPair is two nodes that have keys.
func upPair(t testing.TB, options ...func(*handshake.Manager)) (a, b *node) {
	t.Helper()
	nodes := newNodes(t, 2, options...)
	a, b = nodes[0], nodes[1]
	acquaint(a, b)
	a.send(b.self, "hello")
	b.expect(t, "hello")
	eventually(t, "both are up", func() bool {
		return a.status(t, b).State == handshake.Up && b.status(t, a).State == handshake.Up
	})
	return a, b
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testnet.WaitLimit); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen: %s", what)
		}
	}
}
