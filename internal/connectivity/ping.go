package connectivity

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"weft/internal/family"
)

// Lengths of headers, in bytes.
const (
	icmpLen = 8
	ipv4Len = 20
	ipv6Len = 40
)

// ping sends an ICMP echo request in a packet of size bytes, or the smallest if size is 0, which no
// router may cut, again each second until it is answered or ctx is done. It returns the round-trip time.
func ping(ctx context.Context, from *standIn, to netip.Addr, size int) (time.Duration, error) {
	conn, err := openICMP(ctx, from, family.Of(to))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	header, request, reply := ipv4Len, icmp.Type(ipv4.ICMPTypeEcho), icmp.Type(ipv4.ICMPTypeEchoReply)
	if to.Is6() {
		header, request, reply = ipv6Len, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	payload := make([]byte, max(0, size-header-icmpLen))
	for seq := 1; ; seq++ {
		echo := &icmp.Echo{ID: os.Getpid() & 0xffff, Seq: seq, Data: payload}
		b, err := (&icmp.Message{Type: request, Body: echo}).Marshal(nil) // the kernel sums ICMPv6
		if err != nil {
			return 0, fmt.Errorf("make a ping: %w", err)
		}
		sent := time.Now()
		if _, err := conn.WriteTo(b, &net.IPAddr{IP: to.AsSlice()}); err != nil {
			return 0, fmt.Errorf("ping %s: %w", to, err)
		}
		answered, err := awaitReply(conn, to, reply, echo, sent.Add(time.Second))
		if answered {
			return time.Since(sent), nil
		}
		if ctx.Err() != nil {
			return 0, fmt.Errorf("%d pings of %d bytes to %s got no answer", seq, len(b)+header, to)
		}
		if err != nil {
			return 0, err
		}
	}
}

// openICMP opens a socket for ICMP in the stand-in. Its kernel must not believe that the path is
// narrow, nor cut packets: whether they arrive is the question.
func openICMP(ctx context.Context, from *standIn, of family.Family) (conn net.PacketConn, err error) {
	network, level, option, value := "ip4:icmp", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE
	if of == family.IPv6 {
		network, level, option, value = "ip6:ipv6-icmp", unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		controlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) })
		return errors.Join(controlErr, err)
	}}
	err = from.do(func() (err error) {
		conn, err = config.ListenPacket(ctx, network, of.Unspecified().String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open a socket for pings: %w", err)
	}
	return conn, nil
}

// awaitReply reads until the reply comes, or until deadline.
func awaitReply(conn net.PacketConn, from netip.Addr, kind icmp.Type, request *icmp.Echo, deadline time.Time) (bool, error) {
	_ = conn.SetReadDeadline(deadline)
	b := make([]byte, 64<<10)
	for {
		n, peer, err := conn.ReadFrom(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("wait for the answer to a ping: %w", err)
		}
		m, err := icmp.ParseMessage(kind.Protocol(), b[:n])
		if err != nil || m.Type != kind || !peer.(*net.IPAddr).IP.Equal(from.AsSlice()) {
			continue
		}
		if echo, ok := m.Body.(*icmp.Echo); ok && echo.ID == request.ID && echo.Seq == request.Seq && len(echo.Data) == len(request.Data) {
			return true, nil
		}
	}
}
