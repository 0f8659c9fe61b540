package echo_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"weft/internal/echo"
)

// serve answers at a free port of the loopback device, and elsewhere.
func serve(t *testing.T) netip.AddrPort {
	t.Helper()
	server, err := echo.Listen(t.Context(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), server.Port())
}

func TestEchoesAndSaysFromWhere(t *testing.T) {
	at := serve(t)
	dial := new(net.Dialer).DialContext
	for _, at := range []netip.AddrPort{at, netip.AddrPortFrom(netip.IPv6Loopback(), at.Port())} {
		for _, size := range []int{echo.MinDatagram, 1400, 60000} {
			if seen, err := echo.UDP(t.Context(), dial, at, size); err != nil || seen != at.Addr() {
				t.Errorf("UDP, %d bytes: from %v, %v", size, seen, err)
			}
		}
		for _, size := range []int{0, 1, 1 << 20} {
			if seen, err := echo.TCP(t.Context(), dial, at, size); err != nil || seen != at.Addr() {
				t.Errorf("TCP, %d bytes: from %v, %v", size, seen, err)
			}
		}
	}
}

// TestAnswersNeverMoreThanWasAsked: a short datagram, a flood, and too much on a connection.
func TestAnswersNeverMoreThanWasAsked(t *testing.T) {
	at := serve(t)
	conn, err := net.Dial("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	short, long := make([]byte, echo.MinDatagram-1), bytes.Repeat([]byte{7}, 200)
	for _, b := range [][]byte{short, long} {
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	got := make([]byte, 1000)
	if n, err := conn.Read(got); err != nil || n != len(long) {
		t.Errorf("the first answer has %d bytes, %v", n, err)
	}
	tcp, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	go func() { _, _ = io.CopyN(tcp, zeros{}, 2<<20) }()
	all, _ := io.ReadAll(tcp) // a reset, since not all was read
	if len(all) > 1<<20+64 {
		t.Errorf("%d bytes came back", len(all))
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// TestOneAskerLeavesOthersTheirShare: an address that holds all connections that it gets leaves some
// to others.
func TestOneAskerLeavesOthersTheirShare(t *testing.T) {
	at := serve(t)
	for asker := 1; asker <= 9; asker++ {
		want := 4
		if asker > 8 { // there are 32 for all
			want = 0
		}
		if got := openFrom(t, at, asker, 5); got != want {
			t.Errorf("asker %d has %d connections, want %d", asker, got, want)
		}
	}
}

// loopback returns an address of this machine for each asker.
func loopback(asker int) net.IP { return net.IPv4(127, 0, 0, byte(asker)) }

// openFrom opens connections from an asker's address, and returns how many were not closed at once.
func openFrom(t *testing.T, to netip.AddrPort, asker, connections int) (open int) {
	t.Helper()
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: loopback(asker)}}
	for range connections {
		conn, err := from.Dial("tcp", to.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		if n, _ := conn.Read(make([]byte, 100)); n > 0 {
			open++
		}
	}
	return open
}
