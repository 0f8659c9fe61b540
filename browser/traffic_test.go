package browser

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"weft/internal/testnet"
)

// converse has two pods exchange packets until the test ends, at a rate that the page can show: a
// connection echoes blocks of so many bytes, about a hundred a second.
func converse(t *testing.T, from, to *testnet.Pod, bytes int) {
	t.Helper()
	const port = "7000"
	listener, err := to.Listen(t.Context(), "tcp", "[::]:"+port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			defer conn.Close()
			_, _ = io.Copy(conn, conn) // until the test ends
		}
	}()
	addr, _ := to.Addr(false)
	conn, err := from.Dial(t.Context(), "tcp", net.JoinHostPort(addr.String(), port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	var rounds atomic.Int64
	go func() {
		block := make([]byte, bytes)
		for {
			if _, err := conn.Write(block); err != nil {
				return
			}
			if _, err := io.ReadFull(conn, block); err != nil {
				return
			}
			rounds.Add(1)
			time.Sleep(10 * time.Millisecond)
		}
	}()
	eventually(t, "the pods converse", func() error {
		if rounds.Load() == 0 {
			return fmt.Errorf("nothing came back")
		}
		return nil
	})
}

// blackHole has a node lose the datagrams of more than limit bytes that arrive.
func blackHole(t *testing.T, n *testnet.Node, limit int) {
	t.Helper()
	run(t, n.Namespace, "ethtool", "-K", testnet.UnderlayLink, "gro", "off")
	run(t, n.Namespace, "nft", fmt.Sprintf("table netdev hole { chain in { type filter hook ingress device %s priority 0; ip protocol udp meta length > %d drop; }; }",
		testnet.UnderlayLink, limit))
}

// forge has a pod send packets from an address that is not its own, until the test ends.
func forge(t *testing.T, pod *testnet.Pod) {
	t.Helper()
	forged := netip.MustParseAddr("10.244.99.99")
	run(t, pod.Namespace, "ip", "addr", "add", forged.String()+"/32", "dev", "lo")
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	var conn net.Conn
	err := pod.Do(func() (err error) {
		dialer := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(forged, 0))}
		conn, err = dialer.DialContext(ctx, "udp", "10.244.2.2:7")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		for ctx.Err() == nil {
			_, _ = conn.Write([]byte("forged")) // the guard drops it
			time.Sleep(100 * time.Millisecond)
		}
	}()
}
