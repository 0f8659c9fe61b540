package tun

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/poller"
)

// The flags of weft's devices (include/uapi/linux/if_tun.h): with and without virtio-net headers.
const (
	bare    = unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_MULTI_QUEUE
	headers = bare | unix.IFF_VNET_HDR
)

// withHeaders returns what attaches a queue with virtio-net headers for use by a driver. The
// wireguard library's own CreateTUN knows devices of one queue only.
func withHeaders(prepare func() func(fd int) (Queue, error)) func(name string) (Queue, error) {
	return func(name string) (Queue, error) {
		request, err := unix.NewIfreq(name)
		if err != nil {
			return nil, fmt.Errorf("name the device: %w", err)
		}
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open /dev/net/tun: %w", err)
		}
		request.SetUint16(headers)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			return nil, errors.Join(fmt.Errorf("attach a queue (TUNSETIFF): %w", err), unix.Close(fd))
		}
		return prepare()(fd)
	}
}

// errTaken says that a device exists which is none that a dead weftd has left.
var errTaken = errors.New("exists already")

// abandoned returns the device that a weftd has left which died: a persistent one, with no process
// at any of its queues. It returns nil if there is no device of the name.
func abandoned(name string) (*netlink.Tuntap, error) {
	link, err := netlink.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for a device %s: %w", name, err)
	}
	left, ok := link.(*netlink.Tuntap)
	switch {
	case !ok || left.Mode != netlink.TUNTAP_MODE_TUN || left.Flags&netlink.TUNTAP_MULTI_QUEUE == 0:
		return nil, fmt.Errorf("a device %s %w, and is not weft's: remove it (ip link del %s), or choose another tun.name", name, errTaken, name)
	case left.NonPersist || left.Queues+left.DisabledQueues > 0:
		return nil, fmt.Errorf("a device %s %w: is another weftd running in this network namespace? Otherwise choose another tun.name", name, errTaken)
	}
	return left, nil
}

// makeWay returns nil if open can attach queues to a device of the name. One that a weftd with
// another driver has left it removes.
func (d driver) makeWay(name string) error {
	const compared = netlink.TUNTAP_VNET_HDR | netlink.TUNTAP_NO_PI
	left, err := abandoned(name)
	if err != nil || left == nil || left.Flags&compared == netlink.TuntapFlag(d.flags)&compared {
		return err
	}
	return remove(left)
}

// Remove removes the device that a weftd has left which died, and reports whether there was one.
func Remove(name string) (bool, error) {
	left, err := abandoned(name)
	if left == nil {
		if errors.Is(err, errTaken) {
			err = nil
		}
		return false, err
	}
	return true, remove(left)
}

func remove(left *netlink.Tuntap) error {
	if err := netlink.LinkDel(left); err != nil {
		return fmt.Errorf("remove the device %s, which a weftd has left: %w", left.Name, err)
	}
	return nil
}

// Persist has the device of a queue outlive its queues, or go with the last one. A weftd that dies
// leaves a persistent device: the routes into it stay, and the kernel drops and counts what they
// lead there, until the next weftd opens it.
func Persist(q Queue, on bool) error {
	value := 0
	if on {
		value = 1
	}
	return control(q.File(), "make the TUN device persistent or not (TUNSETPERSIST)", func(fd int) error {
		return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, value)
	})
}

// Unread returns how many packets for the device of a name the kernel has dropped since it was made: a
// queue had no room for them, or the device had no queue.
func Unread(name string) (uint64, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("read the counters of %s: %w", name, err)
	}
	return link.Attrs().Statistics.TxDropped, nil
}

// Spare are queues without descriptors. To make their buffers takes longer than all the rest.
type Spare struct {
	driver driver
	queues []func(fd int) (Queue, error)
}

// Prepare makes n queues for Adopt.
func Prepare(driver string, n int) (*Spare, error) {
	d, err := find(driver)
	if err != nil {
		return nil, err
	}
	s := &Spare{driver: d}
	for range n {
		s.queues = append(s.queues, d.prepare())
	}
	return s, nil
}

// Adopt goes on with the queues of a device that another process has opened, and which it uses no
// more: as many as were prepared. The packets that came meanwhile are still in them. Adopt closes the
// files.
func (s *Spare) Adopt(name string, files []*os.File) ([]Queue, error) {
	next := 0
	queues, err := openEach(len(s.queues), func() (Queue, error) {
		file, adopt := files[next], s.queues[next]
		next++
		return s.driver.takeOver(file, name, adopt)
	})
	if err != nil {
		for _, file := range files[next:] {
			_ = file.Close()
		}
		return nil, fmt.Errorf("take over the TUN device %s: %w", name, err)
	}
	return queues, nil
}

// takeOver makes a queue of another process's file, which it closes.
func (d driver) takeOver(file *os.File, name string, adopt func(fd int) (Queue, error)) (Queue, error) {
	defer file.Close()
	fd := -1
	err := control(file, "take a queue", func(original int) (err error) {
		if err := d.expect(original, name); err != nil {
			return err
		}
		if fd, err = unix.FcntlInt(uintptr(original), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return err
		}
		// Or NewFile would have the runtime's poller wait for it. The drivers change that as they need.
		return unix.SetNonblock(fd, false)
	})
	if err != nil {
		return nil, err
	}
	return adopt(fd)
}

// expect returns nil if a descriptor is a queue of the device with the driver's flags.
func (d driver) expect(fd int, name string) error {
	request, err := unix.NewIfreq("")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, request); err != nil {
		return fmt.Errorf("it is no queue of a TUN device (TUNGETIFF): %w", err)
	}
	if got, flags := request.Name(), request.Uint16()&headers; got != name || flags != d.flags {
		return fmt.Errorf("it is a queue of %s with the flags %#x, not of %s with %#x", got, flags, name, d.flags)
	}
	return nil
}

// control calls f with the descriptor of a file, without a change of its mode as by Fd.
func control(file *os.File, what string, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err == nil {
		var failed error
		err = errors.Join(raw.Control(func(fd uintptr) { failed = f(int(fd)) }), failed)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// wake ends the present read of a file that the runtime's poller waits for, or the next one.
func wake(file *os.File) error { return file.SetReadDeadline(time.Unix(1, 0)) }

// woken returns the error of a read of such a file. If wake has ended it, the next one waits again.
func woken(file *os.File, err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return errors.Join(poller.ErrWoken, file.SetReadDeadline(time.Time{}))
}
