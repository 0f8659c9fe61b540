// Package encap is the wire: peers, datagrams, and one UDP socket per lane that
// moves them in batches. The formats are in folders of their own.
package encap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"weft/router/packet"
)

// batchSize is how many datagrams one system call moves at the most. The kernel's
// own limit is 1,024 (UIO_MAXIOV); past a few dozen, a longer batch gained nothing
// and only delays the first datagram.
const batchSize = 64

// receiveBuffer is the socket's receive buffer in bytes: about 20 ms of 1.5 Gb/s,
// for when all of a node's lanes are away at once.
const receiveBuffer = 4 << 20

// Datagram is one UDP payload on its way to a peer.
type Datagram struct {
	To      *Peer
	Payload []byte
}

// Received is one UDP payload that arrived. Its frame holds the payload; a codec
// pulls the headers off it.
type Received struct {
	packet.Frame

	// From is the underlay address that it says it comes from, never IPv4-mapped.
	From netip.AddrPort
}

// Conn is one lane's UDP socket. Its reading and its writing half may each be used
// by one goroutine.
type Conn struct {
	udp    *net.UDPConn
	reader reader
	writer writer
}

// Listen opens the sockets of all lanes, bound to the same address. The kernel
// spreads peers over them, so that a flow stays in one (socket(7), SO_REUSEPORT).
func Listen(ctx context.Context, addr netip.AddrPort, lanes int) ([]*Conn, error) {
	// SO_REUSEPORT would let a second weftd share the port and take half of the
	// datagrams. So the port must first be free without it.
	probe, err := listenOne(ctx, addr, false)
	if err != nil {
		return nil, err
	}
	if err := probe.Close(); err != nil {
		return nil, fmt.Errorf("close the UDP port %s again: %w", addr, err)
	}
	conns := make([]*Conn, 0, lanes)
	for range lanes {
		udp, err := listenOne(ctx, addr, true)
		if err == nil {
			var c *Conn
			if c, err = newConn(udp); err == nil {
				conns = append(conns, c)
				continue
			}
			err = errors.Join(err, udp.Close())
		}
		for _, c := range conns {
			err = errors.Join(err, c.Close())
		}
		return nil, err
	}
	return conns, nil
}

func listenOne(ctx context.Context, addr netip.AddrPort, shared bool) (*net.UDPConn, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		controlErr := raw.Control(func(fd uintptr) { err = setOptions(int(fd), addr.Addr().Is6(), shared) })
		return errors.Join(controlErr, err)
	}}
	network := "udp6" // with the address [::], IPv4 too
	switch {
	case addr.Addr().Is4():
		network = "udp4"
	case addr.Addr().IsUnspecified():
		network = "udp"
	}
	pc, err := config.ListenPacket(ctx, network, addr.String())
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("UDP port %s is taken: is another weftd running in this network namespace? (ss -lunp shows who has it): %w", addr, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open the UDP port %s: %w", addr, err)
	}
	return pc.(*net.UDPConn), nil
}

func setOptions(fd int, ipv6, shared bool) error {
	if shared {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return fmt.Errorf("share the UDP port between lanes: %w", err)
		}
	}
	// FORCE ignores net.core.rmem_max, which is 208 KiB on most systems; it needs CAP_NET_ADMIN.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer); err != nil {
		return fmt.Errorf("set the UDP receive buffer: %w", err)
	}
	// DF on every datagram: a fragment lost is a datagram lost, and reassembly can be
	// attacked (RFC 8900 §3). What does not fit comes back as EMSGSIZE (ip(7)).
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO); err != nil {
		return fmt.Errorf("forbid fragments: %w", err)
	}
	if ipv6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO); err != nil {
			return fmt.Errorf("forbid IPv6 fragments: %w", err)
		}
	}
	return nil
}

func newConn(udp *net.UDPConn) (*Conn, error) {
	raw, err := udp.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reach the UDP socket: %w", err)
	}
	c := &Conn{udp: udp}
	c.reader.init(raw)
	c.writer.init(ipv4.NewPacketConn(udp))
	return c, nil
}

// ReadBatch waits until datagrams are there and returns those that are, a batch at
// most. They are valid until the next ReadBatch. After Close it returns an error
// that wraps net.ErrClosed.
func (c *Conn) ReadBatch() ([]Received, error) { return c.reader.read() }

// WriteBatch sends datagrams in order and returns how many the kernel took before
// the first that it refused, and why it did. That one may be skipped and the rest
// be sent: a peer that cannot be reached loses only its own packets.
func (c *Conn) WriteBatch(datagrams []Datagram) (int, error) { return c.writer.write(datagrams) }

// LocalAddr returns the address that the socket is bound to.
func (c *Conn) LocalAddr() netip.AddrPort { return c.udp.LocalAddr().(*net.UDPAddr).AddrPort() }

// Close wakes whoever waits in ReadBatch or WriteBatch.
func (c *Conn) Close() error { return c.udp.Close() }
