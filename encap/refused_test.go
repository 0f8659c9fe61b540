package encap_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"weft/encap"
	"weft/internal/testnet"
)

// hosts are a namespace with a link to each of the others: 10.9.N.1 at its own end,
// 10.9.N.2 at theirs.
func hosts(t *testing.T, others int) (*testnet.Namespace, []*testnet.Namespace) {
	t.Helper()
	network := testnet.ForTest(t, testnet.Options{Prefix: "encap"})
	var all []*testnet.Namespace
	for i := range 1 + others {
		n, err := network.AddNamespace(t.Context(), fmt.Sprint("host", i))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, n)
		if i == 0 {
			continue
		}
		err = testnet.Connect(t.Context(),
			testnet.End{Namespace: all[0], Link: fmt.Sprint("link", i), Addrs: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.9.%d.1/24", i))}},
			testnet.End{Namespace: n, Link: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.9.%d.2/24", i))}},
			testnet.Wire{})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all[0], all[1:]
}

// listenIn is listen in a namespace.
func listenIn(t *testing.T, n *testnet.Namespace, addr string) *encap.Conn {
	t.Helper()
	var conn *encap.Conn
	if err := n.Do(func() error { conn = listen(t, addr, 1)[0]; return nil }); err != nil {
		t.Fatal(err)
	}
	return conn
}

// numbered returns n payloads of size bytes; each begins with its number.
func numbered(n, size int) [][]byte {
	payloads := make([][]byte, n)
	for i := range payloads {
		payloads[i] = append(fmt.Appendf(nil, "%07d", i), make([]byte, size-7)...)
	}
	return payloads
}

// expectReceived fails unless exactly want arrives next at c, in order.
func expectReceived(t *testing.T, c *encap.Conn, want [][]byte) {
	t.Helper()
	got, _ := receive(t, c, len(want))
	if len(got) != len(want) {
		t.Fatalf("%d datagrams arrive, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != string(want[i]) {
			t.Fatalf("datagram %d is %.7q… of %d bytes, want %.7q… of %d", i, got[i], len(got[i]), want[i], len(want[i]))
		}
	}
}

// The kernel changes its mind when the route does: to a card without checksum offload,
// or through IPsec.
func TestRefusedRunsAreSentOneByOne(t *testing.T) {
	from, to, other := listen(t, "127.0.0.1:0", 1)[0], listen(t, "127.0.0.1:0", 1)[0], listen(t, "127.0.0.1:0", 1)[0]
	stream := numbered(600, 500)
	write := func(payloads [][]byte) {
		t.Helper()
		b := batch(peerAt(to, "127.0.0.1"), payloads...)
		b.Add(peerAt(other, "127.0.0.1"), 0, []byte("to another peer"), nil, 15)
		if sent := from.WriteBatch(b); sent.Packets != len(payloads)+1 || sent.Refused != 0 {
			t.Fatalf("WriteBatch = %+v, want %d sent", sent, len(payloads)+1)
		}
	}
	write(stream[:200])
	if !from.Runs() || to.Joined() != 0 {
		t.Fatal("the kernel refuses runs from the start")
	}
	encap.RefuseRuns(t, from)
	write(stream[200:400])
	write(stream[400:])
	if from.Runs() {
		t.Error("the kernel still takes runs; what was refused?")
	}
	expectReceived(t, to, stream)
	expectReceived(t, other, slices.Repeat([][]byte{[]byte("to another peer")}, 3))
}

// Older kernels report EINVAL both for a run that they refuse and for datagrams too big for
// the path (udp_send_skb in net/ipv4/udp.c).
func TestTooBigDatagramsDoNotEndRuns(t *testing.T) {
	host, others := hosts(t, 1)
	from, to := listenIn(t, host, "0.0.0.0:9338"), listenIn(t, others[0], "10.9.1.2:9338")
	good := numbered(40, 1400)
	sent := from.WriteBatch(batch(peerAt(to, "10.9.1.2"), append(slices.Clone(good), numbered(5, 1600)...)...))
	if sent.Packets != len(good) || sent.Refused != 5 || sent.Err != unix.EMSGSIZE {
		t.Errorf("WriteBatch = %+v; want %d sent and 5 refused by EMSGSIZE", sent, len(good))
	}
	expectReceived(t, to, good)
	if b := batch(peerAt(to, "10.9.1.2"), good...); !from.Runs() || from.WriteBatch(b).Packets != len(good) {
		t.Error("no more runs are sent")
	}
	expectReceived(t, to, good)
}

func TestFullSendBufferIsReportedAtOnce(t *testing.T) {
	host, others := hosts(t, 1)
	from, to := listenIn(t, host, "0.0.0.0:9338"), listenIn(t, others[0], "10.9.1.2:9338")
	if _, err := host.Exec(t.Context(), "tc", "qdisc", "add", "dev", "link1", "root",
		"tbf", "rate", "1mbit", "burst", "128kb", "limit", "100mb"); err != nil {
		t.Fatal(err)
	}
	run := batch(peerAt(to, "10.9.1.2"), numbered(44, 1400)...)
	var sent encap.Sent
	for tries := 0; sent.Refused == 0; tries++ {
		if sent = from.WriteBatch(run); tries == 10000 {
			t.Fatal("620 MB are queued, and the socket has room for more")
		}
	}
	if sent.Packets != 0 || sent.Refused != 44 || sent.Err != unix.EAGAIN || !from.Runs() {
		t.Errorf("WriteBatch = %+v, and runs are sent: %v; want 44 refused by EAGAIN", sent, from.Runs())
	}
	if _, err := host.Exec(t.Context(), "tc", "qdisc", "delete", "dev", "link1", "root"); err != nil {
		t.Fatal(err)
	}
	last := []byte("the queue is empty again")
	err := testnet.Wait(t.Context(), "room in the send buffer", func(context.Context) error {
		if sent := from.WriteBatch(batch(peerAt(to, "10.9.1.2"), last)); sent.Refused > 0 {
			return sent.Err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for got := ""; got != string(last); { // behind what got through before
		all, _ := receive(t, to, 1)
		got = all[len(all)-1]
	}
}

func TestALaneThatDoesNotReadLosesNothingOfAnother(t *testing.T) {
	host, others := hosts(t, 1)
	var from, to []*encap.Conn
	if err := errors.Join(
		host.Do(func() error { from = listen(t, "10.9.1.1:9338", 2); return nil }),
		others[0].Do(func() error { to = listen(t, "10.9.1.2:9338", 2); return nil }),
	); err != nil {
		t.Fatal(err)
	}
	flood := numbered(44, 1400)
	for range 500 { // 31 MB into a receive buffer of 8
		from[0].WriteBatch(batch(peerAt(to[0], "10.9.1.2"), flood...))
	}
	dropped, err := others[0].Exec(t.Context(), "nstat", "-asz", "UdpRcvbufErrors")
	if err != nil || regexp.MustCompile(`UdpRcvbufErrors\s+0\s`).MatchString(dropped) {
		t.Fatalf("the kernel counts no datagram for which there was no room: %s, %v", dropped, err)
	}
	quiet := numbered(100, 300)
	if sent := from[1].WriteBatch(batch(peerAt(to[1], "10.9.1.2"), quiet...)); sent.Packets != len(quiet) {
		t.Errorf("WriteBatch = %+v", sent)
	}
	expectReceived(t, to[1], quiet)
}

func TestFittingDatagramOfRefusedRunIsSent(t *testing.T) {
	host, others := hosts(t, 1)
	from, to := listenIn(t, host, "0.0.0.0:9338"), listenIn(t, others[0], "10.9.1.2:9338")
	last := numbered(1, 1400)
	sent := from.WriteBatch(batch(peerAt(to, "10.9.1.2"), append(numbered(5, 1600), last...)...))
	if sent.Packets != 1 || sent.Refused != 5 || sent.Err != unix.EMSGSIZE || !from.Runs() {
		t.Errorf("WriteBatch = %+v; want 1 sent and 5 refused by EMSGSIZE", sent)
	}
	expectReceived(t, to, last)
}
