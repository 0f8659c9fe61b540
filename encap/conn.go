// Package encap is the wire: peers, datagrams, and one UDP socket per lane that
// moves them in batches. The formats are in folders of their own.
package encap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"weft/internal/poller"
	"weft/packet"
)

// batchSize is how many messages one sendmmsg(2) takes at the most.
const batchSize = 64

// Received is one UDP payload that arrived. Its frame holds the payload; a codec
// pulls the headers off it.
type Received struct {
	packet.Frame

	// From is the underlay address that it says it comes from, never IPv4-mapped.
	From netip.AddrPort

	// Class is the traffic class of the outer IP header.
	Class uint8
}

// Conn is one lane's way to the underlay: a socket on the port that all lanes listen
// on, and one with a port of its own to send from. Its reading and its writing half
// may each be used by one goroutine.
type Conn struct {
	receiving *os.File
	sending   *os.File
	local     netip.AddrPort
	port      uint16                 // what the lane sends from
	source    atomic.Pointer[source] // nil: the kernel chooses
	poller    *poller.Poller
	reader    reader
	writer    writer
}

// Options say how to open the lanes' sockets.
type Options struct {
	// GRO has the kernel join datagrams of one flow before they are read (udp(7),
	// UDP_GRO). The reader must cope with frames that share a buffer.
	GRO bool

	// Spread says which lane receives a datagram.
	Spread Spread

	// Single has each datagram sent as a message of its own, and no runs.
	Single bool

	// Mark is the mark that every datagram carries (socket(7), SO_MARK), or 0. The host's
	// rules recognise weftd's own datagrams by it.
	Mark uint32
}

// Listen opens the sockets of n lanes, at least one, which receive at the same address. What a
// peer's lane sends arrives in one of them (see ports.go).
func Listen(ctx context.Context, addr netip.AddrPort, n int, o Options) ([]*Conn, error) {
	// SO_REUSEPORT would let a second weftd share the port and take half of the
	// datagrams. So the port must first be free without it.
	if err := CheckFree(ctx, addr); err != nil {
		return nil, err
	}
	conns := make([]*Conn, 0, n)
	for lane := range n {
		c, err := open(ctx, addr, lane, o)
		if err != nil {
			return nil, closeAll(conns, err)
		}
		conns = append(conns, c)
	}
	if err := spread(int(conns[0].receiving.Fd()), n, o.Spread); err != nil {
		return nil, closeAll(conns, err)
	}
	return conns, nil
}

// CheckFree says why Listen would fail now, if it would because of the address.
func CheckFree(ctx context.Context, addr netip.AddrPort) error {
	probe, err := listenOne(ctx, addr, false, 0)
	if err != nil {
		return err
	}
	if err := probe.Close(); err != nil {
		return fmt.Errorf("close the UDP port %s again: %w", addr, err)
	}
	return nil
}

func closeAll(conns []*Conn, err error) error {
	for _, c := range conns {
		err = errors.Join(err, c.Close())
	}
	return err
}

func listenOne(ctx context.Context, addr netip.AddrPort, shared bool, mark uint32) (*net.UDPConn, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		controlErr := raw.Control(func(fd uintptr) { err = setOptions(int(fd), addr.Addr().Is6(), shared, mark) })
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
		return nil, fmt.Errorf("UDP port %s is taken: is another weftd running in this network namespace, or a VXLAN device such as flannel.1? (ss -lunp, or ip -d link show type vxlan, shows the owner): %w", addr, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open the UDP port %s: %w", addr, err)
	}
	return pc.(*net.UDPConn), nil
}

// option is one that every socket gets.
type option struct {
	level, name, value int
	purpose            string
}

var options = []option{
	// Congestion that the underlay marks is for the pods' packets inside (RFC 6040).
	{unix.IPPROTO_IP, unix.IP_RECVTOS, 1, "learn the TOS of datagrams"},
	// DF on every datagram: a fragment lost is a datagram lost, and reassembly can be
	// attacked (RFC 8900 §3). Larger datagrams than the device takes come back as EMSGSIZE
	// (ip(7)). The path MTU that the kernel has cached does not count: anyone can forge
	// the ICMP message that it comes from.
	{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE, "forbid fragments"},
}

var options6 = []option{
	{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1, "learn the traffic class of datagrams"},
	{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE, "forbid IPv6 fragments"},
}

func setOptions(fd int, ipv6, shared bool, mark uint32) error {
	all := slices.Clone(options)
	if ipv6 {
		all = append(all, options6...)
	}
	if shared {
		all = append(all, option{unix.SOL_SOCKET, unix.SO_REUSEPORT, 1, "share the UDP port between lanes"})
	}
	if mark != 0 {
		all = append(all, option{unix.SOL_SOCKET, unix.SO_MARK, int(mark), "mark datagrams as weftd's"})
	}
	for _, o := range all {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return fmt.Errorf("%s: %w", o.purpose, err)
		}
	}
	return setBuffers(fd)
}

func open(ctx context.Context, addr netip.AddrPort, lane int, o Options) (*Conn, error) {
	receiving, err := listenOne(ctx, addr, true, o.Mark)
	if err != nil {
		return nil, err
	}
	port := receiving.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	sending, err := openSource(ctx, netip.AddrPortFrom(addr.Addr(), port), lane, o.Mark)
	if err != nil {
		return nil, errors.Join(err, receiving.Close())
	}
	c := newConn()
	return c, c.use(receiving, sending, o)
}

// newConn returns a Conn that has no sockets yet.
func newConn() *Conn {
	c := new(Conn)
	c.reader.prepare()
	c.writer.prepare()
	return c
}

// use gives the Conn its two sockets, which it closes if it can't.
func (c *Conn) use(receiving, sending socket, o Options) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, c.closeFiles())
		}
	}()
	var receivingErr, sendingErr error
	c.receiving, receivingErr = detach(receiving)
	c.sending, sendingErr = detach(sending)
	if err := errors.Join(receivingErr, sendingErr); err != nil {
		return err
	}
	from, err := localAddr(c.sending)
	if err != nil {
		return err
	}
	c.port = from.Port()
	if c.local, err = localAddr(c.receiving); err != nil {
		return err
	}
	c.writer.whole.Store(o.Single)
	if err := dropAll(int(c.sending.Fd())); err != nil {
		return err
	}
	fd := int(c.receiving.Fd())
	if o.GRO {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1); err != nil {
			return fmt.Errorf("enable joined datagrams (UDP_GRO): %w", err)
		}
	}
	timeout := unix.NsecToTimeval(poller.Brief.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return fmt.Errorf("limit how long a read waits (SO_RCVTIMEO): %w", err)
	}
	if c.poller, err = poller.New(fd); err != nil {
		return err
	}
	return errors.Join(c.reader.init(c.receiving, c.poller), c.writer.init(c.sending, &c.source))
}

// socket is one of a Conn's, as the runtime knows it.
type socket interface {
	syscall.Conn
	io.Closer
}

func localAddr(f *os.File) (netip.AddrPort, error) {
	addr, err := unix.Getsockname(int(f.Fd()))
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("ask where a socket is bound: %w", err)
	}
	switch at := addr.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(at.Addr), uint16(at.Port)), nil
	}
	return netip.AddrPort{}, errors.New("a socket is not of IPv4 or IPv6")
}

// detach moves the socket into a file that the runtime's poller does not know. It
// would wake a thread for every datagram that arrives or leaves, and no goroutine waits there.
func detach(udp socket) (*os.File, error) {
	defer udp.Close()
	raw, err := udp.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	controlErr := raw.Control(func(original uintptr) {
		if fd, err = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			err = unix.SetNonblock(fd, false) // NewFile would register it otherwise
		}
	})
	if err := errors.Join(controlErr, err); err != nil {
		return nil, fmt.Errorf("take the UDP socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "udp"), nil
}

// ReadBatch waits until datagrams are there and returns those that are, a batch at
// most. They are valid until the next ReadBatch. After Close it returns an error
// that wraps os.ErrClosed, and once after Wake one that wraps poller.ErrWoken.
func (c *Conn) ReadBatch() ([]Received, error) { return c.reader.read() }

// WriteBatch sends what was added to the batch. A peer that cannot be reached loses
// only its own packets.
func (c *Conn) WriteBatch(b *Batch) Sent {
	var sent Sent
	c.writer.write(b.messages, b.iovecs, &sent)
	return sent
}

// WriteTo sends one datagram from the port that all lanes receive at, for what is not
// a lane's. It may be called at any time.
func (c *Conn) WriteTo(payload []byte, to netip.AddrPort) error {
	return c.writeTo(c.reader.raw, payload, to, nil)
}

// WriteFromLane is WriteTo from the port that the lane sends from. So the datagram takes the way of
// the lane's packets, where the underlay chooses it by the ports.
func (c *Conn) WriteFromLane(payload []byte, to netip.AddrPort) error {
	return c.writeTo(c.writer.raw, payload, to, nil)
}

// WriteRunFromLane is WriteFromLane of datagrams of segment bytes each, as a run (see Batch).
func (c *Conn) WriteRunFromLane(run []byte, segment int, to netip.AddrPort) error {
	return c.writeTo(c.writer.raw, run, to, segmentControl(segment))
}

func (c *Conn) writeTo(socket syscall.RawConn, payload []byte, to netip.AddrPort, control []byte) error {
	if from := c.source.Load(); from != nil && from.addr.Is4() == to.Addr().Is4() {
		control = append(control, from.control...)
	}
	var err error
	controlErr := socket.Control(func(fd uintptr) {
		err = unix.Sendmsg(int(fd), payload, control, sockaddr(to), unix.MSG_DONTWAIT)
	})
	if err := errors.Join(controlErr, err); err != nil {
		return fmt.Errorf("send a datagram to %s: %w", to, err)
	}
	return nil
}

func sockaddr(to netip.AddrPort) unix.Sockaddr {
	if to.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	}
	return &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
}

// ShortBuffers returns nil, or by how much the receiving socket's buffers are smaller than
// wanted and how to change that.
func (c *Conn) ShortBuffers() error { return shortBuffers(int(c.receiving.Fd())) }

// Runs reports whether the kernel still takes runs (UDP_SEGMENT).
func (c *Conn) Runs() bool { return !c.writer.whole.Load() }

// Joined returns how many datagrams GRO has joined with others before they were read.
func (c *Conn) Joined() uint64 { return c.reader.joined.Load() }

// Unread returns how many datagrams the kernel has dropped since the receiving socket was opened: it had
// no room for them, or their checksum was wrong (SO_MEMINFO, socket(7)).
func (c *Conn) Unread() uint64 {
	// In the order of include/uapi/linux/sock_diag.h.
	const drops, values = 8, 9
	var info [values]uint32
	raw, err := c.receiving.SyscallConn()
	if err != nil {
		return 0 // it is closed
	}
	_ = raw.Control(func(fd uintptr) {
		size := uint32(unsafe.Sizeof(info))
		_, _, _ = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	})
	return uint64(info[drops])
}

// Restore sets Joined to what it returned in another process.
func (c *Conn) Restore(joined uint64) { c.reader.joined.Store(joined) }

// LocalAddr returns the address that the lanes receive at.
func (c *Conn) LocalAddr() netip.AddrPort { return c.local }

// SourcePort returns the port that the lane sends from.
func (c *Conn) SourcePort() uint16 { return c.port }

// Wake ends the present ReadBatch, or the next one that waits. The sockets stay open, and
// what arrives waits in them.
func (c *Conn) Wake() error { return c.poller.Wake() }

// Close wakes a goroutine that waits in ReadBatch.
func (c *Conn) Close() error { return errors.Join(c.poller.Close(), c.closeFiles()) }

func (c *Conn) closeFiles() error {
	var errs error
	for _, f := range []*os.File{c.receiving, c.sending} {
		if f != nil {
			errs = errors.Join(errs, f.Close())
		}
	}
	return errs
}
