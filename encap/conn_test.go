package encap_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/encap"
)

func listen(t testing.TB, addr string, lanes int) []*encap.Conn {
	t.Helper()
	conns, err := encap.Listen(t.Context(), netip.MustParseAddrPort(addr), lanes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range conns {
			c.Close()
		}
	})
	return conns
}

// peer is the node that receives on c, as one reaches it over addr.
func peer(c *encap.Conn, addr string) *encap.Peer {
	return &encap.Peer{Endpoint: netip.AddrPortFrom(netip.MustParseAddr(addr), c.LocalAddr().Port())}
}

// receive reads n datagrams, in as many batches as they come in.
func receive(t testing.TB, c *encap.Conn, n int) (payloads []string, from netip.AddrPort) {
	t.Helper()
	watchdog := time.AfterFunc(10*time.Second, func() { c.Close() })
	defer watchdog.Stop()
	for len(payloads) < n {
		received, err := c.ReadBatch()
		if err != nil {
			t.Fatalf("after %d of %d datagrams: %v", len(payloads), n, err)
		}
		for i := range received {
			payloads = append(payloads, string(received[i].Packet()))
			from = received[i].From
		}
	}
	return payloads, from
}

func TestBatchesArriveWholeAndInOrder(t *testing.T) {
	for _, tc := range []struct{ name, bind, dial string }{
		{"IPv4", "127.0.0.1:0", "127.0.0.1"},
		{"IPv6", "[::1]:0", "::1"},
		{"IPv4 over dual-stack sockets", "[::]:0", "127.0.0.1"},
		{"IPv6 over dual-stack sockets", "[::]:0", "::1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			from, to := listen(t, tc.bind, 1)[0], listen(t, tc.bind, 1)[0]
			var datagrams []encap.Datagram
			var want []string
			for i := range 150 { // more than two batches
				want = append(want, fmt.Sprintf("%d %s", i, strings.Repeat("x", i*9)))
				datagrams = append(datagrams, encap.Datagram{To: peer(to, tc.dial), Payload: []byte(want[i])})
			}
			if sent, err := from.WriteBatch(datagrams); sent != len(datagrams) || err != nil {
				t.Fatalf("WriteBatch = %d, %v", sent, err)
			}
			got, sender := receive(t, to, len(want))
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("received %d datagrams that are not those sent", len(got))
			}
			if sender != peer(from, tc.dial).Endpoint {
				t.Errorf("they come from %s, want %s", sender, peer(from, tc.dial).Endpoint)
			}
		})
	}
}

func TestTheLargestDatagramArrivesWhole(t *testing.T) {
	from, to := listen(t, "127.0.0.1:0", 1)[0], listen(t, "127.0.0.1:0", 1)[0]
	payload := bytes.Repeat([]byte{7}, 65507) // 65,535 − IPv4 and UDP headers
	if _, err := from.WriteBatch([]encap.Datagram{{To: peer(to, "127.0.0.1"), Payload: payload}}); err != nil {
		t.Fatal(err)
	}
	if got, _ := receive(t, to, 1); got[0] != string(payload) {
		t.Errorf("%d bytes arrived", len(got[0]))
	}
}

func TestARefusedDatagramStopsNothingButItself(t *testing.T) {
	from, to := listen(t, "127.0.0.1:0", 1)[0], listen(t, "127.0.0.1:0", 1)[0]
	good := encap.Datagram{To: peer(to, "127.0.0.1"), Payload: []byte("good")}
	tooBig := encap.Datagram{To: good.To, Payload: make([]byte, 65508)}
	pending := []encap.Datagram{good, good, tooBig, good}

	sent, err := from.WriteBatch(pending)
	if sent != 2 || !errors.Is(err, unix.EMSGSIZE) {
		t.Fatalf("WriteBatch = %d, %v; want 2, EMSGSIZE", sent, err)
	}
	if sent, err = from.WriteBatch(pending[sent+1:]); sent != 1 || err != nil {
		t.Fatalf("WriteBatch of the rest = %d, %v", sent, err)
	}
	if got, _ := receive(t, to, 3); fmt.Sprint(got) != "[good good good]" {
		t.Errorf("received %q", got)
	}
}

func TestCloseWakesTheReader(t *testing.T) {
	c := listen(t, "127.0.0.1:0", 1)[0]
	time.AfterFunc(20*time.Millisecond, func() { c.Close() })
	if _, err := c.ReadBatch(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ReadBatch = %v, want net.ErrClosed", err)
	}
}

func TestLanesShareOnePortAndASecondDaemonDoesNot(t *testing.T) {
	first := listen(t, "127.0.0.1:0", 1)[0].LocalAddr()
	_, err := encap.Listen(t.Context(), first, 2)
	if !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), "is another weftd running") {
		t.Errorf("a second daemon gets %v", err)
	}

	free := netip.AddrPortFrom(first.Addr(), first.Port()+1)
	for _, c := range listen(t, free.String(), 4) {
		if c.LocalAddr() != free {
			t.Errorf("a lane listens on %s, want %s", c.LocalAddr(), free)
		}
	}
}

// golang.org/x/net keeps its scratch in a sync.Pool, which the race detector has
// forget at random: one allocation a batch is allowed, none for each packet is.
func TestDatagramsOverRealSocketsAllocateNothing(t *testing.T) {
	from, to := listen(t, "127.0.0.1:0", 1)[0], listen(t, "127.0.0.1:0", 1)[0]
	datagrams := make([]encap.Datagram, 32)
	for i := range datagrams {
		datagrams[i] = encap.Datagram{To: peer(to, "127.0.0.1"), Payload: make([]byte, 1400)}
	}
	allocs := testing.AllocsPerRun(200, func() {
		if _, err := from.WriteBatch(datagrams); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < len(datagrams); {
			received, err := to.ReadBatch()
			if err != nil {
				t.Fatal(err)
			}
			n += len(received)
		}
	})
	if allocs > 1 {
		t.Errorf("%v allocations for %d datagrams sent and received", allocs, len(datagrams))
	}
}

func TestDerivedMACsAreLocalUnicastAndDiffer(t *testing.T) {
	a, b := encap.DeriveMAC("node1"), encap.DeriveMAC("node2")
	if a == b || a[0] != 0x02 || a != encap.DeriveMAC("node1") {
		t.Errorf("node1 has %s, node2 has %s", a, b)
	}
}
