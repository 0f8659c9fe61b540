// Package echo is the remote end of `weft connectivity test`: a weftd answers over the overlay with
// what it received, and from which address it came. It reads nothing, and answers never more than was
// asked: anybody whose packets reach it may ask.
package echo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// connections is how many there may be at a time, in all and from one address. More are closed at
	// once. A test uses one after the other.
	connections     = 32
	connectionsFrom = 4

	// maxBytes and maxTime are how much a connection echoes, and how long it may last.
	maxBytes = 1 << 20
	maxTime  = 10 * time.Second

	// datagrams is how many are answered in a second, in all and from one address.
	datagrams     = 1000
	datagramsFrom = 100

	// MinDatagram is the size in bytes of the shortest datagram that is answered: the answer, which
	// has the asker's address, is not longer.
	MinDatagram = 64

	maxDatagram = 64 << 10
)

// Server answers at one port, over TCP and UDP.
type Server struct {
	tcp net.Listener
	udp *net.UDPConn
}

// Listen opens the port at all addresses. With a device, only what arrives there is answered.
func Listen(ctx context.Context, device string, port uint16) (*Server, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if device == "" {
			return nil
		}
		controlErr := raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) })
		return errors.Join(controlErr, err)
	}}
	address := fmt.Sprintf("[::]:%d", port)
	tcp, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("open TCP port %d on %s: %w", port, device, err)
	}
	udp, err := config.ListenPacket(ctx, "udp", fmt.Sprintf("[::]:%d", tcp.Addr().(*net.TCPAddr).Port))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open UDP port %d on %s: %w", port, device, err), tcp.Close())
	}
	return &Server{tcp, udp.(*net.UDPConn)}, nil
}

// Port returns the port that the server answers at.
func (s *Server) Port() uint16 { return uint16(s.tcp.Addr().(*net.TCPAddr).Port) }

// Serve answers until ctx is done, and closes the port.
func (s *Server) Serve(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		<-ctx.Done()
		return errors.Join(s.tcp.Close(), s.udp.Close())
	})
	group.Go(func() error { return s.serveTCP() })
	group.Go(func() error { return s.serveUDP() })
	if err := group.Wait(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("answer connectivity tests: %w", err)
	}
	return nil
}

func (s *Server) serveTCP() error {
	var mu sync.Mutex // guards open
	open := newShares(connections, connectionsFrom)
	for {
		conn, err := s.tcp.Accept()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil { // there are no descriptors for a moment, or the peer has gone
			time.Sleep(100 * time.Millisecond)
			continue
		}
		from := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		mu.Lock()
		ok := open.take(from)
		mu.Unlock()
		if !ok {
			conn.Close()
			continue
		}
		go func() {
			answer(conn, from)
			mu.Lock()
			open.free(from)
			mu.Unlock()
		}()
	}
}

// answer sends a line with the address that the connection comes from, and then what arrives.
func answer(conn net.Conn, from netip.Addr) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(maxTime))
	if _, err := fmt.Fprintln(conn, from); err == nil {
		_, _ = io.CopyN(conn, conn, maxBytes)
	}
}

func (s *Server) serveUDP() error {
	var limit datagramLimit
	b := make([]byte, maxDatagram)
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil || !answerable(n, from, s.Port()) || !limit.allow(from.Addr().Unmap(), time.Now()) {
			continue
		}
		copy(b, seen(from))
		_, _ = s.udp.WriteToUDPAddrPort(b[:n], from)
	}
}

// answerable says whether a datagram is answered. Another such server's answer would go to and fro for
// ever.
func answerable(n int, from netip.AddrPort, port uint16) bool {
	return n >= MinDatagram && from.Port() != port
}

// seen is how an answer begins: with the asker's address.
func seen(from netip.AddrPort) string { return from.Addr().Unmap().String() + "\n" }
