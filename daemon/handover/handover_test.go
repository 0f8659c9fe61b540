package handover

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/daemon/engine"
	"weft/drop"
	"weft/encap/sealed"
	"weft/peer"
	"weft/router"
)

// memory returns memory with some content, sealed or not.
func memory(t *testing.T, content []byte, seal int) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "test")
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seal); err != nil {
		t.Fatal(err)
	}
	return f
}

func encode(t *testing.T, m manifest) []byte {
	t.Helper()
	head, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(head))), head...)
}

func TestMemoryIsCheckedBeforeUse(t *testing.T) {
	ticket := newTicket()
	here, err := networkNamespace()
	if err != nil {
		t.Fatal(err)
	}
	good := manifest{Version: version, Ticket: ticket, Namespace: here, State: State{Spec: spec}}
	other, later, pathTicket, elsewhere := good, good, good, good
	other.Spec.Lanes, later.Version, pathTicket.Ticket, elsewhere.Namespace = 3, version+1, "../../etc/passwd", "0:0"
	for _, tc := range []struct {
		name    string
		content []byte
		seals   int
		want    string
	}{
		{"not sealed", encode(t, good), 0, "is not sealed memory"},
		{"may be written", encode(t, good), unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL, "is not sealed memory"},
		{"empty", nil, seals, "has 0 bytes"},
		{"cut", encode(t, good)[:20], seals, "begins with"},
		{"a length that is too large", binary.BigEndian.AppendUint32(nil, 1<<31), seals, "begins with"},
		{"no JSON", append([]byte{0, 0, 0, 1}, 'x'), seals, "parse what was handed over"},
		{"another version", encode(t, later), seals, "it is handed over in version 2, and this weftd knows version 1"},
		{"another network namespace", encode(t, elsewhere), seals, "in another network namespace"},
		{"other lanes", encode(t, other), seals, "tun.lanes is 3 there and 2 here"},
		{"a ticket that is a path", encode(t, pathTicket), seals, "has a ticket that is none"},
		{"no ticket", encode(t, good), seals, ErrClaimed.Error()},
	} {
		o := &Offer{runDir: t.TempDir(), memory: memory(t, tc.content, tc.seals), files: make([]*os.File, 3*lanes)}
		if _, err := o.Claim(spec); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: Claim = %v, want %q", tc.name, err, tc.want)
		}
	}
	o := &Offer{runDir: t.TempDir(), memory: memory(t, encode(t, good), seals), files: make([]*os.File, 3*lanes)}
	if err := issue(o.runDir, ticket); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Claim(spec); err != nil {
		t.Errorf("after all this, a good one: %v", err)
	}
}

// TestLargestClusterIsHandedOver: 5,000 peers with the longest names, of which each roams and has a
// path of its own MTU that loses runs, and lanes that have counted every reason.
func TestLargestClusterIsHandedOver(t *testing.T) {
	const peers = 5000
	s := &State{Spec: spec, Narrow: map[string]int{}, RunsLost: map[string]bool{}, Keys: []byte("keys")}
	addr := netip.MustParseAddr("fd00:1111:2222:3333:4444:5555:6666:7777")
	for i := range peers {
		s.Roams = append(s.Roams, engine.Roam{Key: peer.Fingerprint{1, byte(i >> 8), byte(i)}, Listed: netip.AddrPortFrom(addr, 65535), Addr: addr})
		name := fmt.Sprintf("%s.%04d", strings.Repeat("x", 248), i)
		s.Narrow[name], s.RunsLost[name] = 1280+i, true
	}
	s.Counters.Waited, s.Counters.Logged = sealed.Waited{Packets: 1, Bytes: 2, Lost: 3}, map[string]map[string]uint64{"weftd": {"no_route": 2}}
	for range sealed.MaxLanes {
		drops := map[string]uint64{}
		for _, reason := range drop.All() {
			drops[reason.String()] = math.MaxUint64
		}
		s.Counters.Lanes = append(s.Counters.Lanes, LaneCounters{Outbound: router.Traffic{Packets: math.MaxUint64}, Drops: drops, Joined: 4})
	}
	ticket := newTicket()
	memory, err := write(s, ticket)
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	got, named, err := read(memory)
	if err != nil || named != ticket {
		t.Fatalf("read: ticket %q, %v", named, err)
	}
	if !reflect.DeepEqual(got, s) {
		t.Error("what is read is not what was written")
	}
}

func TestOnlyTheOwnerReachesTheSocket(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, SocketName), nil, 0o666); err != nil { // what a killed weftd has left
		t.Fatal(err)
	}
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Stat(filepath.Join(dir, SocketName))
	if err != nil || info.Mode().Perm() != 0o600 || info.Mode().Type() != os.ModeSocket {
		t.Errorf("the socket has mode %v, %v", info.Mode(), err)
	}
}

// TestAskOfOneThatDoesNotAnswer: one that ends meanwhile hands nothing over, and one that is stopped is
// named with the remedy.
func TestAskOfOneThatDoesNotAnswer(t *testing.T) {
	dir := t.TempDir()
	socket, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(dir, SocketName), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	for _, ends := range []func(net.Conn){
		func(conn net.Conn) { conn.Close() },
		func(conn net.Conn) {
			_, _ = conn.Read(make([]byte, maxMessage))
			conn.Close()
		},
	} {
		go func() {
			if conn, err := socket.Accept(); err == nil {
				ends(conn)
			}
		}()
		if _, _, err := Ask(dir, spec); !errors.Is(err, ErrNobody) {
			t.Errorf("one that ends: %v", err)
		}
	}
	limit := answerLimit
	defer func() { answerLimit = limit }()
	answerLimit = 50 * time.Millisecond
	if _, _, err := Ask(dir, spec); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("kill -CONT %d", os.Getpid())) {
		t.Errorf("one that is stopped: %v", err)
	}
	socket.Close()
	if _, _, err := Ask(dir, spec); !errors.Is(err, ErrNobody) {
		t.Errorf("one that has ended: %v", err)
	}
}

func TestForgetRemovesTickets(t *testing.T) {
	dir := t.TempDir()
	for range 3 {
		if err := issue(dir, newTicket()); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, SocketName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Forget(dir); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != SocketName {
		t.Errorf("left: %v, %v", left, err)
	}
}
