package encap

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Files returns the lane's sockets, which stay the Conn's.
func (c *Conn) Files() (receiving, sending *os.File) { return c.receiving, c.sending }

// Spare are lanes without sockets. To make their buffers takes longer than all the rest.
type Spare []*Conn

// Prepare makes n lanes for Adopt.
func Prepare(n int) (s Spare) {
	for range n {
		s = append(s, newConn())
	}
	return s
}

// Adopt goes on with the sockets of lanes that another process has opened by Listen at addr, and
// which it uses no more: as many as were prepared. What arrived meanwhile is still in them. Adopt
// closes the files.
func (s Spare) Adopt(addr netip.AddrPort, receiving, sending []*os.File, o Options) ([]*Conn, error) {
	conns := make([]*Conn, 0, len(s))
	for lane, c := range s {
		err := c.use(receiving[lane], sending[lane], o)
		if err == nil {
			conns = append(conns, c)
			err = c.expect(addr, o)
		}
		if err != nil {
			for _, f := range append(receiving[lane:], sending[lane:]...) {
				_ = f.Close() // those that use has got are closed
			}
			return nil, closeAll(conns, fmt.Errorf("take over the sockets of lane %d: %w", lane, err))
		}
	}
	if len(conns) == 0 {
		return nil, errors.New("take over the sockets: there are none")
	}
	if err := spread(int(conns[0].receiving.Fd()), len(conns), o.Spread); err != nil {
		return nil, closeAll(conns, err)
	}
	return conns, nil
}

// expect returns nil if both sockets are bound as they must be, and sets their options: those of
// the other process may differ.
func (c *Conn) expect(addr netip.AddrPort, o Options) error {
	anywhere := c.local.Addr().IsUnspecified() && addr.Addr().IsUnspecified()
	if c.local.Port() != addr.Port() || c.local.Addr() != addr.Addr() && !anywhere {
		return fmt.Errorf("the socket is bound to %s, not to %s", c.local, addr)
	}
	for _, f := range []*os.File{c.receiving, c.sending} {
		fd := int(f.Fd())
		if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || kind != unix.IPPROTO_UDP {
			return fmt.Errorf("it is not a UDP socket (protocol %d, %w)", kind, err)
		}
		if err := setOptions(fd, c.local.Addr().Is6(), false, o.Mark); err != nil {
			return err
		}
	}
	return nil
}
