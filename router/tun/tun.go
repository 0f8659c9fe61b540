// Package tun opens the TUN device through which the kernel hands over the pods'
// packets and takes them back: one queue per lane, by one of several drivers.
// Addresses, MTU and routes of the device are not its business.
package tun

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"weft/packet"
)

// Queue is one of the device's queues. Its reading and its writing half may each
// be used by one goroutine. The kernel keeps a flow in one queue.
type Queue interface {
	// Read waits until a packet is there and returns what is there, a batch at most.
	// The frames are valid until the next Read. After Close it returns an error that
	// wraps os.ErrClosed, and once after Wake one that wraps poller.ErrWoken. Another error
	// concerns what was just read; once the device is deleted, every Read returns one.
	Read() ([]packet.Frame, error)

	// Write hands packets to the kernel and returns how many it took (packet.Count). One
	// that it refuses does not keep it from the rest; the error then says why. Each frame
	// needs packet.VirtioRoom bytes of headroom, and its bytes are undefined afterwards.
	Write(frames []packet.Frame) (int, error)

	// Takes says which super-packets Write should get: of TCP, of UDP. That ends for a
	// kind that the kernel turns out to refuse. It may be called at any time.
	Takes() (tcp, udp bool)

	// Wake ends the present Read, or the next one that waits. The queue stays open, and packets
	// wait in it.
	Wake() error

	// File is the queue's descriptor, which stays the queue's.
	File() *os.File

	// Close wakes a goroutine that waits in Read. When all queues are closed the device is gone,
	// unless it is persistent.
	Close() error
}

// driver is a way to use a queue.
type driver struct {
	// open attaches another queue of a device, which the first one makes.
	open func(name string) (Queue, error)

	// prepare makes all that a queue needs but its descriptor, which the result adds. If that fails, it
	// closes it.
	prepare func() func(fd int) (Queue, error)

	flags uint16 // of the device (TUNSETIFF)
}

var drivers = map[string]driver{
	"superpacket": {withHeaders(prepareSuperpacket), prepareSuperpacket, headers},
	"wireguard":   {withHeaders(prepareWireguard), prepareWireguard, headers},
	"water":       {openWater, prepareWater, bare},
}

// Drivers returns the names that Open accepts.
func Drivers() []string {
	names := make([]string, 0, len(drivers))
	for name := range drivers {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Open makes the device name with n queues, or takes the one that a weftd has left which died
// (see Persist). It takes no other device: the kernel would let a second process have a share of
// its packets.
func Open(driver, name string, n int) ([]Queue, error) {
	d, err := find(driver)
	if err != nil {
		return nil, err
	}
	if err := d.makeWay(name); err != nil {
		return nil, err
	}
	queues, err := openEach(n, func() (Queue, error) { return d.open(name) })
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("/dev/net/tun is missing: load the module tun (modprobe tun), or give the container the device: %w", err)
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return nil, fmt.Errorf("not allowed to make a TUN device: run as root or with CAP_NET_ADMIN: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open TUN device %s with driver %s: %w", name, driver, err)
	}
	return queues, nil
}

func find(name string) (driver, error) {
	d, known := drivers[name]
	if !known {
		return d, fmt.Errorf("unknown TUN driver %q; there are %s", name, strings.Join(Drivers(), ", "))
	}
	return d, nil
}

// openEach opens n queues one by one, and closes those it has if one fails.
func openEach(n int, open func() (Queue, error)) ([]Queue, error) {
	queues := make([]Queue, 0, n)
	for range n {
		q, err := open()
		if err != nil {
			for _, opened := range queues {
				err = errors.Join(err, opened.Close())
			}
			return nil, err
		}
		queues = append(queues, q)
	}
	return queues, nil
}
