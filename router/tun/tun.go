// Package tun opens the TUN device through which the kernel hands over the pods'
// packets and takes them back: one queue per lane, by one of several drivers.
// Addresses, MTU and routes of the device are not its business.
package tun

import (
	"errors"
	"fmt"
	"net"
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
	// wraps os.ErrClosed. Another error concerns what was just read; once the device
	// is deleted, every Read returns one.
	Read() ([]packet.Frame, error)

	// Write hands packets to the kernel and returns how many it took (packet.Count). One
	// that it refuses does not keep it from the rest; the error then says why. Each frame
	// needs packet.VirtioRoom bytes of headroom, and its bytes are undefined afterwards.
	Write(frames []packet.Frame) (int, error)

	// Takes says which super-packets Write should get: of TCP, of UDP. That ends for a
	// kind that the kernel turns out to refuse. It may be called at any time.
	Takes() (tcp, udp bool)

	// Close wakes a goroutine that waits in Read. When all queues are closed the device is gone.
	Close() error
}

// drivers open a new device with n queues.
var drivers = map[string]func(name string, n int) ([]Queue, error){
	"superpacket": openSuperpacket,
	"wireguard":   openWireguard,
	"water":       openWater,
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

// Open makes the device name with n queues. A device of that name must not exist:
// the kernel would let a second process take a share of its packets.
func Open(driver, name string, n int) ([]Queue, error) {
	open, known := drivers[driver]
	if !known {
		return nil, fmt.Errorf("unknown TUN driver %q; there are %s", driver, strings.Join(Drivers(), ", "))
	}
	if _, err := net.InterfaceByName(name); err == nil {
		return nil, fmt.Errorf("a device %s exists already: is another weftd running in this network namespace? Otherwise choose another tun.name", name)
	}
	queues, err := open(name, n)
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
