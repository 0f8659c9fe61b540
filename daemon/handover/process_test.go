package handover

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/drop"
	"weft/encap"
	"weft/encap/sealed"
	"weft/fib"
	"weft/internal/alone"
	"weft/packet"
	"weft/packet/packettest"
	"weft/peer"
)

// These tests run real processes and kill them between any two steps of a hand-over. Each process
// seals and opens while it has keys, and writes down what it has sealed and opened. However they
// end, no counter must be used twice, and no datagram opened twice.

const lanes = 2

var (
	self  = &peer.Peer{Name: "node1", Endpoint: netip.MustParseAddrPort("192.168.77.1:9338"), Prefixes: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}, Key: peer.Fingerprint{1}}
	other = &peer.Peer{Name: "node2", Endpoint: netip.MustParseAddrPort("192.168.77.2:9338"), Prefixes: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}, Key: peer.Fingerprint{2}}
	spec  = Spec{Encapsulation: "sealed", Keys: sealed.ExportVersion, TUN: "weft0", Driver: "superpacket", Lanes: lanes, Listen: self.Endpoint}
)

// end is one of the two nodes, in whatever process.
type end struct {
	self, peer *peer.Peer
	peers      *sealed.Peers
	table      *fib.Table
	codecs     []*sealed.Codec
}

type noHandshakes struct{}

func (noHandshakes) Receive([]byte, netip.AddrPort) drop.Reason { return drop.None }

func newEnd(of, to *peer.Peer) *end {
	table, err := fib.New(of, []*peer.Peer{to})
	if err != nil {
		panic(err)
	}
	e := &end{self: of, peer: to, peers: sealed.NewPeers(), table: table}
	e.peers.Set([]*peer.Peer{to})
	for lane := range lanes {
		e.codecs = append(e.codecs, sealed.NewCodec(e.peers, noHandshakes{}, lane, lanes))
	}
	return e
}

// seal returns the datagram of a packet; nil without keys.
func (e *end) seal(lane int) []byte {
	var out encap.Batch
	f := packet.NewFrames(1, 2000)[0]
	f.Fill(copy(f.Reset(), packettest.UDP(e.self.Prefixes[0].Addr().Next(), e.peer.Prefixes[0].Addr().Next(), 20)))
	if e.codecs[lane].Encode(&out, &f, e.self, e.peer) != drop.None {
		return nil
	}
	for _, datagram := range out.Datagrams() {
		return datagram
	}
	return nil
}

func (e *end) opens(datagram []byte) bool {
	r := encap.Received{Frame: packet.NewFrames(1, 2000)[0], From: e.peer.Endpoint}
	r.Fill(copy(r.Reset(), datagram))
	from, _ := e.codecs[int(datagram[7]&31)%lanes].Decode(&r, e.table)
	return from != nil
}

// The environment of a process of the test.
const (
	envRole = "WEFT_HANDOVER_ROLE"
	envDir  = "WEFT_HANDOVER_DIR" // with all files; the run directory
	envKill = "WEFT_HANDOVER_KILL"
	envWait = "WEFT_HANDOVER_WAIT" // for a file, at a step: "step file"
)

func TestMain(m *testing.M) {
	role := os.Getenv(envRole)
	if role == "" {
		os.Exit(m.Run())
	}
	step = func(name string) {
		if name == os.Getenv(envKill) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until it arrives
		}
		if at, file, _ := strings.Cut(os.Getenv(envWait), " "); at == name {
			for !exists(file) {
				time.Sleep(time.Millisecond)
			}
		}
	}
	if err := play(role, os.Getenv(envDir)); err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// work is what a process does while it has keys: it seals in each lane, and tries to open all that
// the other node has sent. It writes that down first, as if it sent and delivered it.
func work(e *end, dir string) error {
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	for i := range 10 {
		if datagram := e.seal(i % lanes); datagram != nil {
			fmt.Fprintf(log, "sealed %x\n", datagram[:sealed.HeaderLen])
		}
	}
	sent, err := os.ReadFile(filepath.Join(dir, "inbound"))
	if err != nil {
		return err
	}
	for n, line := range bytes.Fields(sent) {
		datagram, err := hex.DecodeString(string(line))
		if err != nil {
			return err
		}
		if e.opens(datagram) {
			fmt.Fprintf(log, "opened %d\n", n)
		}
	}
	step("worked")
	return nil
}

// play is the life of a process.
func play(role, dir string) error {
	e := newEnd(self, other)
	switch role {
	case "old, asked", "old, stopped by systemd":
		keys, err := os.ReadFile(filepath.Join(dir, "keys"))
		if err == nil {
			_, err = e.peers.Import(keys)
		}
		if err != nil {
			return err
		}
		lock, err := alone.Lock(dir)
		if err != nil {
			return err
		}
		if err := work(e, dir); err != nil {
			return err
		}
		if role == "old, asked" {
			return handOver(e, dir, lock)
		}
		s := state(e)
		step("exported")
		return Store(dir, s)
	case "next, asks":
		p, offer, err := Ask(dir, spec)
		if err != nil {
			return err
		}
		if err := goOn(e, dir, offer); err != nil {
			return err
		}
		p.Claimed()
		return p.AwaitEnd(context.Background())
	default: // started by systemd
		offer := Inherited(dir)
		if offer == nil {
			return errors.New("nothing is inherited")
		}
		step("inherited")
		return goOn(e, dir, offer)
	}
}

func state(e *end) *State {
	null, err := os.Open(os.DevNull)
	if err != nil {
		panic(err)
	}
	all := slices.Repeat([]*os.File{null}, lanes) // in place of queues and sockets
	return &State{Spec: spec, Keys: e.peers.Export(), Queues: all, Receiving: all, Sending: all}
}

func handOver(e *end, dir string, lock *os.File) error {
	listener, err := Listen(dir)
	if err != nil {
		return err
	}
	r, err := listener.Accept()
	if err != nil {
		return err
	}
	s := state(e)
	step("exported")
	standLimit = 200 * time.Millisecond
	if err = r.Offer(dir, s, lock); err == nil {
		step("handed over")
		return nil
	}
	step("kept")
	if _, err := e.peers.Import(s.Keys); err != nil {
		return err
	}
	if err := work(e, dir); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "went on"), nil, 0o600)
}

func goOn(e *end, dir string, offer *Offer) error {
	s, err := offer.Claim(spec)
	if err != nil {
		return err
	}
	if _, err := e.peers.Import(s.Keys); err != nil {
		return err
	}
	step("imported")
	return work(e, dir)
}
