package testnet

import (
	"bytes"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

const (
	// recordBuffer holds what was recorded, in bytes, with what the kernel adds.
	recordBuffer = 256 << 20

	// largestFrame is more than a link with ordinary offloads sends at once.
	largestFrame = 1 << 17
)

// Record returns the Ethernet frames that a link sent and received while f ran, in
// their order, as a socket sees them (packet(7)). With offloads on, what is segmented
// by the card is one frame. If the kernel had to leave frames out, that is an error.
func (n *Namespace) Record(link string, f func() error) (frames [][]byte, err error) {
	socket, err := n.packetSocket(link)
	if err != nil {
		return nil, fmt.Errorf("record %s in %s: %w", link, n.name, err)
	}
	defer unix.Close(socket)
	if err := f(); err != nil {
		return nil, err
	}
	if frames, err = readFrames(socket); err != nil {
		return nil, fmt.Errorf("read what passed %s in %s: %w", link, n.name, err)
	}
	return frames, nil
}

// packetSocket opens a socket that keeps what passes a link from now on.
func (n *Namespace) packetSocket(link string) (socket int, err error) {
	const all = unix.ETH_P_ALL>>8&0xff | unix.ETH_P_ALL&0xff<<8 // in network order
	err = n.Do(func() error {
		device, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		// Without a protocol it receives nothing until it is bound to the link.
		if socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		err = errors.Join(
			unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, recordBuffer),
			unix.Bind(socket, &unix.SockaddrLinklayer{Protocol: all, Ifindex: device.Index}))
		if err != nil {
			_ = unix.Close(socket)
		}
		return err
	})
	return socket, err
}

// readFrames takes what the socket holds. It need not wait: the kernel gives a frame
// to such a socket before it gives it to anybody else.
func readFrames(socket int) (frames [][]byte, err error) {
	buf := make([]byte, largestFrame)
	for {
		n, _, err := unix.Recvfrom(socket, buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			stats, err := unix.GetsockoptTpacketStats(socket, unix.SOL_PACKET, unix.PACKET_STATISTICS)
			if err == nil && stats.Drops > 0 {
				err = fmt.Errorf("%d frames were left out", stats.Drops)
			}
			return frames, err
		case err != nil:
			return nil, err
		}
		frames = append(frames, bytes.Clone(buf[:n]))
	}
}
