package encap

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// socketBuffer is the size in bytes of a socket's receive and send buffers: a few
// milliseconds of 10 Gb/s, for when a lane is away for that long.
const socketBuffer = 8 << 20

// buffers are the two of a socket, how each is set, and the sysctl that limits it.
var buffers = []struct {
	name          string
	force, option int
	limit         string
}{
	{"receive", unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, "net.core.rmem_max"},
	{"send", unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, "net.core.wmem_max"},
}

// setBuffers makes a socket's buffers as large as it may. FORCE ignores the limit, which is
// 208 KiB on most systems, but needs CAP_NET_ADMIN over the whole machine: in a user
// namespace, as an unprivileged LXC container has, the limit stands.
func setBuffers(fd int) error {
	for _, b := range buffers {
		err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, b.force, socketBuffer)
		if errors.Is(err, unix.EPERM) {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, b.option, socketBuffer)
		}
		if err != nil {
			return fmt.Errorf("set the UDP %s buffer: %w", b.name, err)
		}
	}
	return nil
}

// shortBuffers returns nil if setBuffers has reached what it wants.
func shortBuffers(fd int) error {
	var short error
	for _, b := range buffers {
		n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, b.option)
		n /= 2 // the kernel counts its own overhead too (socket(7))
		switch {
		case err != nil:
			short = errors.Join(short, fmt.Errorf("read the size of the UDP %s buffer: %w", b.name, err))
		case n < socketBuffer:
			short = errors.Join(short, fmt.Errorf("the UDP %s buffer has %d bytes instead of %d, so bursts lose packets; set %s=%d on the machine that runs this container",
				b.name, n, socketBuffer, b.limit, socketBuffer))
		}
	}
	return short
}
