// Package load makes and takes UDP packets inside pods: a source that sends as fast
// as it can or at a rate, and a sink that counts. IPv4 only.
//
// iperf3 sends small packets by one system call each, and so measures itself. Here a
// batch is one call, and nothing is allocated or timed per packet.
//
// The functions block in system calls that the Go runtime knows nothing of. They are
// meant for a process of their own: see podload.
package load

import (
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ipAndUDPBytes is by how many bytes an IPv4 packet is longer than its UDP payload.
const ipAndUDPBytes = 28

// Sizes is a sequence of lengths in bytes of IP packets, which a source repeats. Its
// length divides batchSize.
type Sizes []int

var (
	// Small is packets of 64 bytes: IPv4 and UDP headers and 36 bytes of payload.
	Small = Sizes{64}

	// IMIX is seven packets of 64 bytes to four of 576 and one of 1400, mixed: on
	// average 346 bytes.
	IMIX = Sizes{64, 576, 64, 64, 576, 64, 1400, 64, 576, 64, 576, 64}
)

// Mean is the mean length in bytes.
func (s Sizes) Mean() float64 {
	sum := 0
	for _, size := range s {
		sum += size
	}
	return float64(sum) / float64(len(s))
}

// Count is what a source sent, or what arrived at a sink.
type Count struct {
	Packets uint64        `json:"packets"`
	Took    time.Duration `json:"took"` // from the first packet to the last
}

// Rate returns packets per second; 0 if there is no telling.
func (c Count) Rate() float64 {
	if c.Took <= 0 {
		return 0
	}
	return float64(c.Packets) / c.Took.Seconds()
}

// openSocket returns a blocking UDP socket whose reads give up after patience.
func openSocket(patience time.Duration) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open a UDP socket: %w", err)
	}
	timeout := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("limit the wait for packets: %w", err)
	}
	return fd, nil
}

func bind(fd int, port uint16) error {
	return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrInet4{Port: int(port)}))
}

func connect(fd int, to netip.AddrPort) error {
	return os.NewSyscallError("connect", unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}))
}
