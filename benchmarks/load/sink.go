package load

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// drained is how long nothing must arrive until a sink that must stop does.
	drained = 50 * time.Millisecond

	// drainLimit ends the wait when the source goes on nevertheless.
	drainLimit = 2 * time.Second

	// sinkBuffer is the socket's receive buffer in bytes. What a system under test
	// delivers in one burst must not be lost to the load that takes it.
	sinkBuffer = 16 << 20
)

// Sink counts packets that arrive at a port, until stop is set and no more come. It
// calls ready when it listens.
func Sink(port uint16, stop *atomic.Bool, ready func()) (Count, error) {
	fd, err := openSocket(drained)
	if err != nil {
		return Count{}, err
	}
	defer unix.Close(fd)
	// FORCE goes beyond net.core.rmem_max.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, sinkBuffer); err != nil {
		return Count{}, fmt.Errorf("set the receive buffer: %w", err)
	}
	if err := bind(fd, port); err != nil {
		return Count{}, err
	}
	ready()
	return count(fd, stop)
}

func count(fd int, stop *atomic.Bool) (Count, error) {
	b := newBatch([]int{2048})
	var a Count
	var first, stopped time.Time
	for {
		n, errno := b.receive(fd)
		switch now := time.Now(); {
		case errors.Is(errno, unix.EAGAIN):
			if stop.Load() {
				return a, nil
			}
			continue
		case errno != 0:
			return a, fmt.Errorf("receive packets: %w", errno)
		case a.Packets == 0:
			first = now
		default:
			a.Took = now.Sub(first)
		}
		a.Packets += uint64(n)
		if stop.Load() {
			if stopped.IsZero() {
				stopped = time.Now()
			}
			if time.Since(stopped) > drainLimit {
				return a, nil
			}
		}
	}
}
