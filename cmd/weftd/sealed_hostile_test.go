package main_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

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

// accomplice is a compromised peer of node1, with keys. The test decides what it sends.
type accomplice struct {
	at      *testnet.Namespace
	conn    *encap.Conn
	node1   *peer.Peer
	self    *peer.Peer
	codec   *sealed.Codec
	manager *handshake.Manager
	table   *fib.Table

	mu       sync.Mutex
	received [][]byte // sealed datagrams of node1
	opened   atomic.Int64
}

const accompliceAddr = "192.168.77.2"

// besideAccomplice starts node1 with a pod, and an accomplice that has talked to it.
func besideAccomplice(t *testing.T) (cluster *testnet.Cluster, pod *testnet.Pod, a *accomplice) {
	t.Helper()
	network := testnet.ForTest(t, testnet.Options{Prefix: "weftd", BinDir: binDir})
	cluster, err := network.NewCluster(t.Context(), testnet.ClusterOptions{Nodes: 1, Sealed: true})
	if err != nil {
		t.Fatal(err)
	}
	node := cluster.Nodes()[0]
	a = &accomplice{}
	if a.at, err = network.AddNamespace(t.Context(), "accomplice"); err != nil {
		t.Fatal(err)
	}
	link := testnet.End{Namespace: a.at, Link: "eth0", Addrs: prefixes(accompliceAddr+"/24", "192.168.77.22/24")}
	if err := cluster.Segment.Attach(t.Context(), link); err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own := testnet.NodeEntry{Name: "node2", Endpoint: netip.MustParseAddrPort(accompliceAddr + ":9338"),
		PodCIDRs: prefixes("10.244.2.0/24"), Key: nodekey.FingerprintOf(key.Public().(ed25519.PublicKey)).String()}
	silent := testnet.NodeEntry{Name: "node3", Endpoint: netip.MustParseAddrPort("192.168.77.3:9338"),
		PodCIDRs: prefixes("10.244.3.0/24"), Key: peer.Fingerprint{3}.String()}
	if err := node.SetNodes([]testnet.NodeEntry{node.Entry(), own, silent}); err != nil {
		t.Fatal(err)
	}
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	pod = addPod(t, node, "a")
	a.start(t, key, own, node.Entry())
	a.send(t, from2("10.244.2.5", pod))
	eventually(t, "the accomplice's packet to arrive", func() error {
		if n := report(t, node).Inbound.Packets; n == 0 {
			return fmt.Errorf("none has")
		}
		return nil
	})
	return cluster, pod, a
}

func (a *accomplice) start(t *testing.T, key ed25519.PrivateKey, own, node1 testnet.NodeEntry) {
	t.Helper()
	a.self, a.node1 = peerOf(t, own), peerOf(t, node1)
	var err error
	if a.table, err = fib.New(a.self, []*peer.Peer{a.node1}); err != nil {
		t.Fatal(err)
	}
	// A process that another test is about to start holds, until it does, all sockets that
	// are open now: also the one by which Listen finds out whether the port is free.
	eventually(t, "the accomplice's port", func() error {
		return a.at.Do(func() error {
			anywhere := netip.AddrPortFrom(netip.IPv4Unspecified(), a.self.Endpoint.Port())
			conns, err := encap.Listen(t.Context(), anywhere, 1, encap.Options{Spread: sealed.SpreadBy()})
			if err == nil {
				a.conn = conns[0]
			}
			return err
		})
	})
	peers := sealed.NewPeers()
	if a.manager, err = handshake.New(key, 1, peers, a.conn, a.self.Endpoint, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	a.manager.Update(a.self, []*peer.Peer{a.node1})
	a.codec = sealed.NewCodec(peers, a.manager, 0, 1)
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = a.manager.Run(ctx) })
	tasks.Go(a.receive)
	t.Cleanup(func() {
		cancel()
		a.conn.Close()
		tasks.Wait()
	})
}

func peerOf(t *testing.T, n testnet.NodeEntry) *peer.Peer {
	t.Helper()
	key, err := peer.ParseFingerprint(n.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &peer.Peer{Name: n.Name, Endpoint: n.Endpoint, Prefixes: n.PodCIDRs, Key: key}
}

func (a *accomplice) receive() {
	// Reading keeps the thread, which would end with the goroutine, and with it each weftd
	// that was started from it (Pdeathsig).
	defer runtime.UnlockOSThread()
	for {
		received, err := a.conn.ReadBatch()
		if err != nil {
			return
		}
		for i := range received {
			if b := received[i].Packet(); testnet.IsSealed(b) {
				a.mu.Lock()
				a.received = append(a.received, bytes.Clone(b))
				a.mu.Unlock()
			}
			if peer, _ := a.codec.Decode(&received[i], a.table); peer != nil {
				a.opened.Add(1)
			}
		}
	}
}

// seal returns the datagram in which the accomplice would send a packet to node1; nil if
// it waits for keys.
func (a *accomplice) seal(t *testing.T, ip []byte) []byte {
	t.Helper()
	f := packet.NewFrames(1, 2000)[0]
	f.Fill(copy(f.Reset(), ip))
	var out encap.Batch
	if reason := a.codec.Encode(&out, &f, a.self, a.node1); reason != drop.None {
		t.Fatal(reason)
	}
	for _, datagram := range out.Datagrams() {
		return datagram
	}
	return nil
}

func (a *accomplice) send(t *testing.T, ip []byte) {
	t.Helper()
	if datagram := a.seal(t, ip); datagram != nil {
		send(t, a.socket(t, accompliceAddr), datagram)
	}
}

// socket opens one at one of the accomplice's addresses.
func (a *accomplice) socket(t *testing.T, addr string) *net.UDPConn {
	t.Helper()
	conn, err := listenUDP(a.at, netip.AddrPortFrom(netip.MustParseAddr(addr), 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// from2 is a packet of one of node2's pods to a pod.
func from2(source string, to *testnet.Pod) []byte {
	for _, addr := range to.Addrs {
		if addr.Is4() {
			return packettest.UDP(netip.MustParseAddr(source), addr, 64)
		}
	}
	return nil
}

// weftd drops them, and counts each under its reason.
func TestHostileSealedDatagramsGetNoAnswer(t *testing.T) {
	t.Parallel()
	cluster, pod, a := besideAccomplice(t)
	node := cluster.Nodes()[0]
	victim := socketAt(t, pod.Namespace, 5000) // packettest's packets go there
	peer, elsewhere, stranger := a.socket(t, accompliceAddr), a.socket(t, "192.168.77.22"), socketAt(t, cluster.Outside, 0)
	good := a.seal(t, from2("10.244.2.5", pod))
	send(t, peer, good)
	_ = victim.SetReadDeadline(time.Now().Add(testnet.WaitLimit))
	if n, err := victim.Read(make([]byte, 1500)); n != 64 || err != nil {
		t.Fatalf("a proper datagram does not arrive: %d bytes, %v", n, err)
	}
	fresh := func(edit func(b []byte) []byte) []byte { return edit(a.seal(t, from2("10.244.2.5", pod))) }
	flip := func(at int, bits byte) []byte {
		return fresh(func(b []byte) []byte { b[(at+len(b))%len(b)] ^= bits; return b })
	}
	// Something that node1 has sealed.
	if _, err := victim.WriteToUDPAddrPort([]byte("reflect this"), netip.MustParseAddrPort("10.244.2.5:4000")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "node1's datagram", func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.received) == 0 {
			return fmt.Errorf("none yet")
		}
		return nil
	})
	a.mu.Lock()
	own := a.received[len(a.received)-1]
	a.mu.Unlock()

	before := snmp(t, node.Namespace)
	for _, tc := range []struct {
		name    string
		from    *net.UDPConn
		payload []byte
		reason  string
	}{
		{"a non-peer's garbage", stranger, bytes.Repeat([]byte{0x5a}, 1400), "unknown_peer"}, // taken for QUIC
		{"a non-peer's datagram of another type", stranger, bytes.Repeat([]byte{0x02}, 1400), "bad_header"},
		{"a non-peer's QUIC", stranger, append([]byte{0xc3, 0, 0, 0, 1, 8}, make([]byte, 1194)...), "unknown_peer"},
		{"an empty datagram", peer, nil, "truncated"},
		{"a header alone", peer, good[:16], "truncated"},
		{"half a tag", peer, good[:24], "truncated"},
		{"a VXLAN datagram", peer, datagram("10.244.2.5", addrOf(t, pod, false).String()), "bad_header"},
		{"a replay", peer, good, "replayed"},
		{"a replay from another address", elsewhere, good, "replayed"},
		{"a non-peer's replay", stranger, good, "replayed"},
		{"another session", peer, flip(4, 0x80), "unknown_index"},
		{"a lane that does not exist", peer, flip(7, 0x02), "unknown_index"},
		{"another counter", peer, flip(12, 0x01), "not_authentic"},
		{"another packet", peer, flip(20, 0x01), "not_authentic"},
		{"another tag", peer, flip(-1, 0x01), "not_authentic"},
		{"a truncated tag", peer, fresh(func(b []byte) []byte { return b[:len(b)-1] }), "not_authentic"},
		{"node1's own, reflected", peer, own, "unknown_index"},
		{"another peer's source", peer, a.seal(t, from2("10.244.3.5", pod)), "source_not_peer"},
		{"a source of the node's own", peer, a.seal(t, from2("10.244.1.9", pod)), "source_not_peer"},
		{"a source outside the cluster", peer, a.seal(t, from2("198.51.100.1", pod)), "source_not_peer"},
		{"a destination of another node", peer, a.seal(t, packettest.UDP(netip.MustParseAddr("10.244.2.5"), netip.MustParseAddr("10.244.3.5"), 64)), "destination_not_local"},
		{"a loopback destination", peer, a.seal(t, packettest.UDP(netip.MustParseAddr("10.244.2.5"), netip.MustParseAddr("127.0.0.1"), 64)), "destination_not_local"},
		{"a multicast destination", peer, a.seal(t, packettest.UDP(netip.MustParseAddr("10.244.2.5"), netip.MustParseAddr("224.0.0.1"), 64)), "destination_not_local"},
		{"no packet inside", peer, a.seal(t, make([]byte, 20)), "malformed"},
	} {
		expectDropped(t, node, tc.name, tc.reason, func() { send(t, tc.from, tc.payload) })
	}
	for _, silent := range []*net.UDPConn{peer, elsewhere, stranger, victim} {
		_ = silent.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := silent.Read(make([]byte, 1500)); err == nil {
			t.Errorf("%s received %d bytes", silent.LocalAddr(), n)
		}
	}
	// QUIC asks for signs of life meanwhile, of the accomplice only.
	if after := snmp(t, node.Namespace); after["Icmp.OutMsgs"] != before["Icmp.OutMsgs"] {
		t.Errorf("the node answered with ICMP: %s messages before, %s after", before["Icmp.OutMsgs"], after["Icmp.OutMsgs"])
	}
	for _, p := range report(t, node).Peers {
		if p.Name == "node2" && p.Endpoint.Addr().String() != accompliceAddr {
			t.Errorf("node2 is taken to be at %s now", p.Endpoint)
		}
	}
}

// weftd accepts a peer's new address though the State does not have it.
func TestPeerRoamsByAuthenticDatagrams(t *testing.T) {
	t.Parallel()
	cluster, pod, a := besideAccomplice(t)
	node := cluster.Nodes()[0]
	endpoint := func() string {
		for _, p := range report(t, node).Peers {
			if p.Name == "node2" {
				return p.Endpoint.String()
			}
		}
		return ""
	}
	for _, addr := range []string{"192.168.77.33", accompliceAddr, "192.168.77.34"} {
		run(t, a.at, "ip", "addr", "flush", "dev", "eth0")
		run(t, a.at, "ip", "addr", "add", addr+"/24", "dev", "eth0")
		socket := a.socket(t, addr)
		eventually(t, "node1 to follow node2 to "+addr, func() error {
			send(t, socket, a.seal(t, from2("10.244.2.5", pod)))
			if at := endpoint(); at != addr+":9338" {
				return fmt.Errorf("it is taken to be at %s", at)
			}
			return nil
		})
	}
}

// An attacker that holds back a peer's datagrams, and sends them from elsewhere, does not
// receive the peer's packets.
func TestAPeerIsNotFollowedToWhereItDoesNotAnswer(t *testing.T) {
	t.Parallel()
	cluster, pod, a := besideAccomplice(t)
	node, stranger := cluster.Nodes()[0], socketAt(t, cluster.Outside, 0)
	for range 5 {
		before := number(t, metric(t, node, `weft_packets_total{direction="inbound"}`))
		send(t, stranger, a.seal(t, from2("10.244.2.5", pod)))
		eventually(t, "the datagram to be delivered", func() error {
			if now := number(t, metric(t, node, `weft_packets_total{direction="inbound"}`)); now != before+1 {
				return fmt.Errorf("%v packets before, %v now", before, now)
			}
			return nil
		})
		for _, p := range report(t, node).Peers {
			if p.Name == "node2" && p.Endpoint.Addr().String() != accompliceAddr {
				t.Fatalf("node2 is taken to be at %s", p.Endpoint)
			}
		}
	}
}

func TestAMillionBadDatagramsLeaveNoTrace(t *testing.T) {
	cluster, pod, a := besideAccomplice(t)
	node := cluster.Nodes()[0]
	before := residentMB(t, node.PID())
	goroutines := number(t, metric(t, node, "go_goroutines"))
	random := mathrand.New(mathrand.NewPCG(1, 2))
	seeds := [][]byte{
		a.seal(t, from2("10.244.2.5", pod)),
		append([]byte{0xc3, 0, 0, 0, 1, 8}, make([]byte, 1194)...), // an Initial of QUIC, as far as its header goes
		append([]byte{0x43}, make([]byte, 60)...),                  // a short header
	}
	peer, stranger := a.socket(t, accompliceAddr), socketAt(t, cluster.Outside, 0)
	total := testnet.Sampled(40_000, 1_000_000)
	var senders sync.WaitGroup
	for _, from := range []*net.UDPConn{peer, stranger} {
		seed := random.Uint64()
		senders.Go(func() {
			random := mathrand.New(mathrand.NewPCG(seed, 2))
			buf := make([]byte, 0, 64<<10)
			for sent := 0; sent < total/2; {
				seed := seeds[random.IntN(len(seeds))]
				size := 1 + random.IntN(len(seed))
				run := min(60, 60_000/size) // datagrams of one size go out at once
				buf = buf[:0]
				for range run {
					at := len(buf)
					buf = append(buf, seed[:size]...)
					for range 1 + random.IntN(4) {
						buf[at+random.IntN(size)] = byte(random.Uint32())
					}
				}
				if err := sendRun(from, buf, size, netip.MustParseAddrPort("192.168.77.1:9338")); err != nil {
					t.Error(err)
					return
				}
				sent += run
			}
		})
	}
	senders.Wait()
	if err := node.Crashed(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "node1 to work as before", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), testnet.WaitLimit)
		defer cancel()
		got := a.opened.Load()
		if _, err := pod.Exec(ctx, "ping", "-c1", "-W1", "10.244.2.5"); err == nil || a.opened.Load() == got {
			return fmt.Errorf("no packet of its pod arrives: %w", err)
		}
		return nil
	})
	_ = stranger.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := stranger.Read(make([]byte, 1500)); err == nil {
		t.Errorf("the non-peer is answered with %d bytes", n)
	}
	dropped := 0.0
	for _, reason := range []string{"unknown_peer", "truncated", "bad_header", "unknown_index", "replayed", "not_authentic", "handshakes_full"} {
		dropped += number(t, metric(t, node, fmt.Sprintf("weft_drops_total{reason=%q}", reason)))
	}
	after := residentMB(t, node.PID())
	t.Logf("%.0f of %d were read and dropped by weftd; memory %.1f MB before, %.1f MB at most", dropped, total, before, after)
	if dropped < float64(total/20) {
		t.Error("that is too few for a comparison")
	}
	if after > before+32 { // QUIC looks at some before it is sure
		t.Errorf("memory grew from %.1f MB to %.1f MB", before, after)
	}
	eventually(t, "the goroutines to be as many as before", func() error {
		if now := number(t, metric(t, node, "go_goroutines")); now > goroutines+20 {
			return fmt.Errorf("%v before, %v now", goroutines, now)
		}
		return nil
	})
}

// An attacker that can send from a peer's address can begin handshakes, but not complete one.
func TestAFloodOfHandshakesCostsLittleMemory(t *testing.T) {
	cluster, _, a := besideAccomplice(t)
	node := cluster.Nodes()[0]
	before := residentMB(t, node.PID())
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	_ = key
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"weft/1"}, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}}
	var attackers sync.WaitGroup
	for range 8 {
		transport := &quic.Transport{Conn: a.socket(t, accompliceAddr)}
		defer transport.Close()
		for range 8 {
			attackers.Go(func() {
				for range 50 {
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
					conn, err := transport.Dial(ctx, net.UDPAddrFromAddrPort(a.node1.Endpoint), config, &quic.Config{})
					if err == nil {
						select { // without a certificate TLS fails once the server has looked
						case <-conn.Context().Done():
						case <-time.After(testnet.WaitLimit):
							t.Error("a non-peer stays connected")
						}
					}
					cancel()
				}
			})
		}
	}
	attackers.Wait()
	after := residentMB(t, node.PID())
	t.Logf("memory %.1f MB before, %.1f MB at most", before, after)
	if after > before+64 {
		t.Errorf("memory grew from %.1f MB to %.1f MB", before, after)
	}
	if err := node.Crashed(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testnet.WaitLimit)
	defer cancel()
	if err := a.manager.Rotate(ctx, "node1"); err != nil {
		t.Errorf("after the flood a peer gets no keys: %v", err)
	}
	if strings.Contains(logs(t, node), "panic") {
		t.Error("weftd panicked")
	}
}
