package load

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// pace is how often a source that keeps a rate sends what is due. Longer, and its
// bursts would overflow queues that the same rate in an even flow does not.
const pace = 250 * time.Microsecond

// Source sends packets to a sink for a while: perSecond of them, or as many as the
// kernel takes if perSecond is 0.
func Source(to netip.AddrPort, sizes Sizes, perSecond float64, during time.Duration) (Count, error) {
	fd, err := openSocket(time.Second)
	if err != nil {
		return Count{}, err
	}
	defer unix.Close(fd)
	if err := connect(fd, to); err != nil {
		return Count{}, err
	}
	payloads := make([]int, len(sizes))
	for i, size := range sizes {
		payloads[i] = size - ipAndUDPBytes
	}
	s := source{fd: fd, batch: newBatch(payloads)}
	if perSecond == 0 {
		return s.blast(during)
	}
	return s.keep(perSecond, during)
}

type source struct {
	fd    int
	batch *batch
	sent  uint64
}

func (s *source) blast(during time.Duration) (Count, error) {
	started := time.Now()
	for time.Since(started) < during {
		if err := s.send(batchSize); err != nil {
			return Count{}, err
		}
	}
	return Count{Packets: s.sent, Took: time.Since(started)}, nil
}

// keep sends, every pace, what is due by then. When the kernel or the machine is too
// slow for the rate, it does not make up for more than a batch: a source that catches
// up in one go would measure its own pause.
func (s *source) keep(perSecond float64, during time.Duration) (Count, error) {
	// The kernel's default slack of 50 µs would be a fifth of the pace (prctl(2)).
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return Count{}, fmt.Errorf("make sleeping precise: %w", err)
	}
	started := time.Now()
	var given float64 // up to the packet that is not made up for any more
	for wake := started; ; wake = wake.Add(pace) {
		pause := unix.NsecToTimespec(time.Until(wake).Nanoseconds())
		_ = unix.Nanosleep(&pause, nil) // EINVAL if wake is past, EINTR: both send at once
		elapsed := time.Since(started)
		if elapsed >= during {
			return Count{Packets: s.sent, Took: elapsed}, nil
		}
		due := elapsed.Seconds()*perSecond - given - float64(s.sent)
		most := max(batchSize, 2*perSecond*pace.Seconds())
		if due > most {
			given += due - most
			due = most
		}
		if err := s.send(int(due)); err != nil {
			return Count{}, err
		}
	}
}

// send hands n packets to the kernel. One that finds a queue full is not sent, and
// not counted.
func (s *source) send(n int) error {
	for n > 0 {
		first := int(s.sent % batchSize)
		sent, errno := s.batch.send(s.fd, first, min(n, batchSize-first))
		switch errno {
		case 0:
			s.sent += uint64(sent)
			n -= sent
		case unix.ENOBUFS:
			return nil
		default:
			return fmt.Errorf("send packets: %w", errno)
		}
	}
	return nil
}
