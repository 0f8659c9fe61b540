package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// pingPayload makes an IP packet of 64 bytes.
	pingPayload = 64 - ipAndUDPBytes

	// lostAfter is when a packet counts as lost, and the next is sent.
	lostAfter = 200 * time.Millisecond

	// uncounted is how many round trips come before those that count: neighbours are
	// looked up, caches filled, clocks raised. Of these, mostLost may get no answer.
	uncounted = 200
	mostLost  = 10

	// fastest is a round trip that no path is faster than. It bounds how many there are.
	fastest = 4 * time.Microsecond
)

// RoundTrips is what one ping-pong measured. Times are of the whole way there and
// back, in nanoseconds; sockperf by default prints half of it.
type RoundTrips struct {
	Count int           `json:"count"`
	Lost  int           `json:"lost"`
	P50   time.Duration `json:"p50"`
	P99   time.Duration `json:"p99"`
	P999  time.Duration `json:"p999"`
	Max   time.Duration `json:"max"`
}

// Ping sends a packet to a Pong, waits for its return and sends the next, for a while.
func Ping(to netip.AddrPort, during time.Duration) (RoundTrips, error) {
	fd, err := openSocket(lostAfter)
	if err != nil {
		return RoundTrips{}, err
	}
	defer unix.Close(fd)
	if err := connect(fd, to); err != nil {
		return RoundTrips{}, err
	}
	p := pinger{fd: fd}
	if err := p.warmUp(); err != nil {
		return RoundTrips{}, err
	}
	took := make([]time.Duration, 0, during/fastest)
	lost := 0
	for started := time.Now(); time.Since(started) < during && len(took) < cap(took); {
		switch roundTrip, err := p.exchange(); {
		case errors.Is(err, errLost):
			lost++
		case err != nil:
			return RoundTrips{}, err
		default:
			took = append(took, roundTrip)
		}
	}
	return summarize(took, lost)
}

// summarize sorts took.
func summarize(took []time.Duration, lost int) (RoundTrips, error) {
	if len(took) == 0 {
		return RoundTrips{}, fmt.Errorf("no answer to any of %d packets", lost)
	}
	slices.Sort(took)
	at := func(quantile float64) time.Duration { return took[int(quantile*float64(len(took)-1))] }
	return RoundTrips{
		Count: len(took), Lost: lost,
		P50: at(0.5), P99: at(0.99), P999: at(0.999), Max: took[len(took)-1],
	}, nil
}

var errLost = errors.New("no answer came")

// pinger numbers its packets, so that an answer that comes after all is not taken for
// the next one's.
type pinger struct {
	fd     int
	number uint64
	out    [pingPayload]byte
	in     [pingPayload]byte
}

func (p *pinger) warmUp() error {
	lost := 0
	for range uncounted {
		_, err := p.exchange()
		if errors.Is(err, errLost) && lost < mostLost {
			lost++
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *pinger) exchange() (time.Duration, error) {
	p.number++
	binary.NativeEndian.PutUint64(p.out[:], p.number)
	started := time.Now()
	if _, errno := transfer(unix.SYS_WRITE, p.fd, p.out[:]); errno != 0 {
		return 0, fmt.Errorf("send a packet: %w", errno)
	}
	for {
		switch _, errno := transfer(unix.SYS_READ, p.fd, p.in[:]); {
		case errno == unix.EAGAIN:
			return 0, errLost
		case errno != 0:
			return 0, fmt.Errorf("receive the answer: %w", errno)
		case binary.NativeEndian.Uint64(p.in[:]) == p.number:
			return time.Since(started), nil
		}
	}
}

// transfer reads or writes once. It does not tell the runtime: after a wait of more
// than some 20 µs, which is what is measured, coming back would take the scheduler's
// lock and sometimes another thread's wake-up.
func transfer(number uintptr, fd int, b []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(number, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// Pong answers every packet that arrives at a port, and never returns unless it fails.
// It calls ready when it listens.
func Pong(port uint16, ready func()) error {
	fd, err := openSocket(0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := bind(fd, port); err != nil {
		return err
	}
	ready()
	var payload [pingPayload]byte
	from := unix.RawSockaddrInet4{}
	for {
		if err := answer(fd, payload[:], &from); err != nil {
			return err
		}
	}
}

func answer(fd int, payload []byte, from *unix.RawSockaddrInet4) error {
	length := uint32(unix.SizeofSockaddrInet4)
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&payload[0])), uintptr(len(payload)),
		0, uintptr(unsafe.Pointer(from)), uintptr(unsafe.Pointer(&length)))
	if errno == unix.EINTR {
		return nil
	}
	if errno != 0 {
		return fmt.Errorf("receive a packet: %w", errno)
	}
	_, _, errno = unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&payload[0])), n,
		0, uintptr(unsafe.Pointer(from)), uintptr(length))
	// A full queue loses the answer, as it would any packet: the other end counts it.
	if errno != 0 && errno != unix.ENOBUFS && errno != unix.ECONNREFUSED {
		return fmt.Errorf("answer a packet: %w", errno)
	}
	return nil
}
