package encap_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/encap"
	"weft/internal/poller"
	"weft/peer"
)

func listen(t testing.TB, addr string, lanes int) []*encap.Conn {
	t.Helper()
	conns, err := encap.Listen(t.Context(), netip.MustParseAddrPort(addr), lanes, encap.Options{GRO: true})
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

// overEachFamily runs a test for each way to use IPv4 and IPv6: with an address to bind
// to and one that reaches it.
func overEachFamily(t *testing.T, test func(t *testing.T, bind, dial string)) {
	for _, tc := range []struct{ name, bind, dial string }{
		{"IPv4", "127.0.0.1", "127.0.0.1"},
		{"IPv6", "[::1]", "::1"},
		{"IPv4 over dual-stack sockets", "[::]", "127.0.0.1"},
		{"IPv6 over dual-stack sockets", "[::]", "::1"},
	} {
		t.Run(tc.name, func(t *testing.T) { test(t, tc.bind, tc.dial) })
	}
}

// peerAt is the node that receives on c, as one reaches it over addr.
func peerAt(c *encap.Conn, addr string) *peer.Peer {
	return &peer.Peer{Endpoint: netip.AddrPortFrom(netip.MustParseAddr(addr), c.LocalAddr().Port())}
}

// receive reads n datagrams, in as many batches as they come in.
func receive(t testing.TB, c *encap.Conn, n int) (payloads []string, from netip.AddrPort) {
	t.Helper()
	watchdog := time.AfterFunc(time.Minute, func() { c.Close() })
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

// batch makes one of payloads to a peer.
func batch(to *peer.Peer, payloads ...[]byte) *encap.Batch {
	b := new(encap.Batch)
	for _, p := range payloads {
		b.Add(to, 0, p[:min(len(p), 22)], p[min(len(p), 22):], len(p)-10)
	}
	return b
}

func TestBatchesArriveWholeAndInOrder(t *testing.T) {
	overEachFamily(t, func(t *testing.T, bind, dial string) {
		from, to := listen(t, bind+":0", 1)[0], listen(t, bind+":0", 1)[0]
		var want []string
		var payloads [][]byte
		for i := range 300 { // runs of every length, more than one system call
			text := fmt.Sprintf("%d %s", i, strings.Repeat("x", 100+i/(i%10+1)))
			want, payloads = append(want, text), append(payloads, []byte(text))
		}
		if sent := from.WriteBatch(batch(peerAt(to, dial), payloads...)); sent.Packets != len(want) || sent.Refused != 0 {
			t.Fatalf("WriteBatch = %+v", sent)
		}
		got, sender := receive(t, to, len(want))
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("received %d datagrams that are not those sent", len(got))
		}
		if want := netip.AddrPortFrom(netip.MustParseAddr(dial), from.SourcePort()); sender != want {
			t.Errorf("they come from %s, want %s", sender, want)
		}
	})
}

func TestARunIsOneMessageAndArrivesAsItsDatagrams(t *testing.T) {
	from, to := listen(t, "127.0.0.1:0", 1)[0], listen(t, "127.0.0.1:0", 1)[0]
	var payloads [][]byte
	for i := range 40 {
		payloads = append(payloads, bytes.Repeat([]byte{byte(i)}, 1400))
	}
	payloads = append(payloads, []byte("the last one is shorter"))
	b := batch(peerAt(to, "127.0.0.1"), payloads...)
	if b.Len() != 1 {
		t.Errorf("%d messages, want 1", b.Len())
	}
	if sent := from.WriteBatch(b); sent.Packets != 41 || sent.Bytes != 40*1390+13 {
		t.Errorf("WriteBatch = %+v", sent)
	}
	got, _ := receive(t, to, 41)
	for i, p := range payloads {
		if got[i] != string(p) {
			t.Fatalf("datagram %d has %d bytes, want %d", i, len(got[i]), len(p))
		}
	}
	if joined := to.Joined(); joined != 41 {
		t.Errorf("GRO joined %d datagrams; does it engage at all?", joined)
	}
}

func TestRunsEndWhereOneMessageMust(t *testing.T) {
	a, c := &peer.Peer{Name: "a"}, &peer.Peer{Name: "c"}
	b := new(encap.Batch)
	add := func(to *peer.Peer, size int) int {
		b.Add(to, 0, make([]byte, size), nil, size)
		return b.Len()
	}
	for i, step := range []struct {
		to       *peer.Peer
		size     int
		messages int
		why      string
	}{
		{a, 100, 1, "the first"}, {a, 100, 1, "as long"}, {a, 60, 1, "shorter"},
		{a, 60, 2, "behind a shorter one"}, {a, 61, 3, "longer"}, {c, 61, 4, "to another peer"}, {a, 61, 5, "back again"},
	} {
		if got := add(step.to, step.size); got != step.messages {
			t.Errorf("step %d, %s: %d messages, want %d", i, step.why, got, step.messages)
		}
	}
	b.Reset()
	for range 64 {
		add(a, 10)
	}
	if b.Len() != 1 || add(a, 10) != 2 {
		t.Errorf("a run holds more or fewer than 64 datagrams: %d messages of 65", b.Len())
	}
	b.Reset()
	for range 3 {
		add(a, 30000)
	}
	if b.Len() != 2 {
		t.Errorf("3 datagrams of 30,000 bytes are %d messages; two fit one", b.Len())
	}
}

func TestTheTrafficClassOfADatagramArrives(t *testing.T) {
	overEachFamily(t, func(t *testing.T, bind, dial string) {
		from, to := listen(t, bind+":0", 1)[0], listen(t, bind+":0", 1)[0]
		const ect0, ce, expedited = 2, 3, 46 << 2
		b, want := new(encap.Batch), []uint8{0, 0, ect0, ect0, ect0, ce, expedited | ce}
		p := peerAt(to, dial)
		for _, class := range want {
			b.Add(p, class, make([]byte, 100), nil, 100)
		}
		if b.Len() != 4 {
			t.Errorf("%d messages; a run for each class makes 4", b.Len())
		}
		if sent := from.WriteBatch(b); sent.Packets != len(want) {
			t.Fatalf("WriteBatch = %+v", sent)
		}
		var got []uint8
		for len(got) < len(want) {
			received, err := to.ReadBatch()
			if err != nil {
				t.Fatal(err)
			}
			for i := range received {
				got = append(got, received[i].Class)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("classes %v arrive as %v", want, got)
		}
	})
}

func TestTheLargestDatagramArrivesWhole(t *testing.T) {
	from, to := listen(t, "127.0.0.1:0", 1)[0], listen(t, "127.0.0.1:0", 1)[0]
	payload := bytes.Repeat([]byte{7}, 65507) // 65,535 − IPv4 and UDP headers
	if sent := from.WriteBatch(batch(peerAt(to, "127.0.0.1"), payload)); sent.Packets != 1 {
		t.Fatalf("WriteBatch = %+v", sent)
	}
	if got, _ := receive(t, to, 1); got[0] != string(payload) {
		t.Errorf("%d bytes arrived", len(got[0]))
	}
}

func TestARefusedDatagramStopsNothingButItself(t *testing.T) {
	from, to := listen(t, "127.0.0.1:0", 1)[0], listen(t, "127.0.0.1:0", 1)[0]
	b := batch(peerAt(to, "127.0.0.1"), []byte("good 1"), []byte("good 10"), make([]byte, 65508), []byte("good"), make([]byte, 65508))
	sent := from.WriteBatch(b)
	if sent.Packets != 3 || sent.Refused != 2 || sent.Err != unix.EMSGSIZE {
		t.Fatalf("WriteBatch = %+v; want 3 sent, 2 refused, EMSGSIZE", sent)
	}
	if got, _ := receive(t, to, 3); fmt.Sprint(got) != "[good 1 good 10 good]" {
		t.Errorf("received %q", got)
	}
}

// A socket without checksums is refused runs (udp_send_skb), as a card without
// checksum offload is.
func TestWhereRunsAreRefusedDatagramsGoOneByOne(t *testing.T) {
	from, to := listen(t, "127.0.0.1:0", 1)[0], listen(t, "127.0.0.1:0", 1)[0]
	encap.RefuseRuns(t, from)
	var payloads [][]byte
	for i := range 100 {
		payloads = append(payloads, bytes.Repeat([]byte{byte(i)}, 500))
	}
	payloads = append(payloads, []byte("the shorter one"))
	for range 2 {
		sent := from.WriteBatch(batch(peerAt(to, "127.0.0.1"), payloads...))
		if sent.Packets != 101 || sent.Bytes != 100*490+5 || sent.Refused != 0 {
			t.Errorf("WriteBatch = %+v", sent)
		}
		got, _ := receive(t, to, 101)
		for i, p := range payloads {
			if got[i] != string(p) {
				t.Fatalf("datagram %d is %q", i, got[i])
			}
		}
	}
	if from.Runs() {
		t.Error("the socket says that it sends runs")
	}
}

// Some kernels lose runs without an error.
func TestNoRunsWhereTheyAreOff(t *testing.T) {
	conns, err := encap.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), 1, encap.Options{Single: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conns[0].Close() })
	to := listen(t, "127.0.0.1:0", 1)[0]
	payloads := numbered(100, 500)
	if sent := conns[0].WriteBatch(batch(peerAt(to, "127.0.0.1"), payloads...)); sent.Packets != 100 || conns[0].Runs() {
		t.Errorf("WriteBatch = %+v, runs are sent: %v", sent, conns[0].Runs())
	}
	expectReceived(t, to, payloads)
	if to.Joined() != 0 {
		t.Error("they arrive as runs")
	}
}

func TestCloseWakesTheReader(t *testing.T) {
	c := listen(t, "127.0.0.1:0", 1)[0]
	time.AfterFunc(20*time.Millisecond, func() { c.Close() })
	for range 2 { // the second one does not wait
		if _, err := c.ReadBatch(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("ReadBatch = %v, want os.ErrClosed", err)
		}
	}
}

// What arrives at a lane that was stopped waits for the next one that reads.
func TestWakeEndsAReadAndKeepsWhatArrives(t *testing.T) {
	c := listen(t, "127.0.0.1:0", 1)[0]
	time.AfterFunc(20*time.Millisecond, func() { _ = c.Wake() })
	if _, err := c.ReadBatch(); !errors.Is(err, poller.ErrWoken) {
		t.Errorf("ReadBatch = %v, want poller.ErrWoken", err)
	}
	c.WriteBatch(batch(peerAt(c, "127.0.0.1"), []byte("later")))
	if got, _ := receive(t, c, 1); !slices.Equal(got, []string{"later"}) {
		t.Errorf("received %q", got)
	}
}

func TestLanesShareOnePortAndASecondDaemonDoesNot(t *testing.T) {
	first := listen(t, "127.0.0.1:0", 1)[0].LocalAddr()
	_, err := encap.Listen(t.Context(), first, 2, encap.Options{})
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

// The datagrams of one lane arrive in one lane, those of several are spread.
func TestLanesStayTogetherAndSpread(t *testing.T) {
	overEachFamily(t, func(t *testing.T, bind, dial string) {
		free := func() string { return fmt.Sprint(bind, ":", listen(t, bind+":0", 1)[0].LocalAddr().Port()+1) }
		senders, receivers := listen(t, free(), 8), listen(t, free(), 4)
		for i, from := range senders {
			var want []string
			for j := range 10 {
				text := fmt.Sprintf("%d from lane %d", j, i)
				want = append(want, text)
				from.WriteBatch(batch(peerAt(receivers[0], dial), []byte(text)))
			}
			if got, _ := receive(t, receivers[i%4], 10); !slices.Equal(got, want) {
				t.Errorf("lane %d receives %q, want %q", i%4, got, want)
			}
		}
	})
}

func TestWhatIsSentToASourcePortIsNotKept(t *testing.T) {
	from, to := listen(t, "127.0.0.1:0", 1)[0], listen(t, "127.0.0.1:0", 1)[0]
	target := &peer.Peer{Endpoint: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), to.SourcePort())}
	if sent := from.WriteBatch(batch(target, []byte("without a reader"))); sent.Packets != 1 {
		t.Fatalf("WriteBatch = %+v", sent)
	}
	if n := encap.Unread(t, to); n != 0 {
		t.Errorf("%d bytes wait to be read", n)
	}
}

func TestDatagramsOverRealSocketsAllocateNothing(t *testing.T) {
	from, to := listen(t, "127.0.0.1:0", 1)[0], listen(t, "127.0.0.1:0", 1)[0]
	b, p := new(encap.Batch), peerAt(to, "127.0.0.1")
	payload := make([]byte, 1400)
	from.SendFrom(netip.MustParseAddr("127.0.0.1"))
	allocs := testing.AllocsPerRun(200, func() {
		b.Reset()
		for range 32 {
			b.Add(p, 0, payload[:22], payload[22:], 1378)
		}
		if sent := from.WriteBatch(b); sent.Packets != 32 {
			t.Fatalf("WriteBatch = %+v", sent)
		}
		for n := 0; n < 32; {
			received, err := to.ReadBatch()
			if err != nil {
				t.Fatal(err)
			}
			n += len(received)
		}
	})
	if allocs > 0 {
		t.Errorf("%v allocations for 32 datagrams sent and received", allocs)
	}
}

func TestDerivedMACsAreLocalUnicastAndDiffer(t *testing.T) {
	a, b := peer.DeriveMAC("node1"), peer.DeriveMAC("node2")
	if a == b || a[0] != 0x02 || a != peer.DeriveMAC("node1") {
		t.Errorf("node1 has %s, node2 has %s", a, b)
	}
}

// The driver wireguard joins packets by appending to the first one's buffer.
func TestOnlyALoneDatagramHasRoomBehind(t *testing.T) {
	from, to := listen(t, "127.0.0.1:0", 1)[0], listen(t, "127.0.0.1:0", 1)[0]
	room := func(n int) int {
		var payloads [][]byte
		for range n {
			payloads = append(payloads, make([]byte, 500))
		}
		from.WriteBatch(batch(peerAt(to, "127.0.0.1"), payloads...))
		received, err := to.ReadBatch()
		if err != nil || len(received) != n {
			t.Fatalf("%d datagrams received of %d: %v", len(received), n, err)
		}
		return cap(received[0].Packet()) - received[0].Len()
	}
	if got := room(1); got < 60000 {
		t.Errorf("behind a datagram alone are %d bytes of room", got)
	}
	if got := room(2); got != 0 {
		t.Errorf("behind the first of two are %d bytes of room: they are the second's", got)
	}
}
