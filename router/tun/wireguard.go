package tun

import (
	"fmt"
	"os"

	wgtun "golang.zx2c4.com/wireguard/tun"

	"weft/packet"
)

// wireguard drives a queue by golang.zx2c4.com/wireguard/tun: the kernel hands
// over and takes super-packets, and the library segments and coalesces them in
// userspace, with their checksums.
type wireguard struct {
	device wgtun.Device
	frames []packet.Frame

	in    [][]byte // where Read puts packets: the frames' space
	sizes []int
	out   [][]byte // what Write gives the library: packets with room for a virtio-net header
}

// prepareWireguard prepares nothing: the library makes its buffers with the queue.
func prepareWireguard() func(fd int) (Queue, error) { return newWireguard }

func newWireguard(fd int) (Queue, error) {
	device, _, err := wgtun.CreateUnmonitoredTUNFromFD(fd) // owns fd, also if it fails
	if err != nil {
		return nil, fmt.Errorf("set the queue up: %w", err)
	}
	w := &wireguard{device: device, frames: packet.NewFrames(device.BatchSize(), packet.MaxSize)}
	w.sizes = make([]int, len(w.frames))
	for i := range w.frames {
		w.in = append(w.in, w.frames[i].Reset())
	}
	return w, nil
}

func (w *wireguard) Read() ([]packet.Frame, error) {
	n, err := w.device.Read(w.in, w.sizes, 0)
	for i := range n {
		w.frames[i].Reset()
		w.frames[i].Fill(w.sizes[i])
	}
	return w.frames[:n], woken(w.device.File(), err)
}

func (w *wireguard) Write(frames []packet.Frame) (int, error) {
	w.out = w.out[:0]
	for i := range frames {
		if !frames[i].Complete() {
			continue
		}
		w.out = append(w.out, frames[i].WithRoom(packet.VirtioRoom, 0))
	}
	_, err := w.device.Write(w.out, packet.VirtioRoom)
	// The library goes on behind a packet that the kernel refused and joins the
	// errors. It does not report how many packets each refused write had coalesced.
	return len(w.out) - min(countJoined(err), len(w.out)), err
}

func countJoined(err error) int {
	if err == nil {
		return 0
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return 1
	}
	n := 0
	for _, e := range joined.Unwrap() {
		n += countJoined(e)
	}
	return n
}

// Takes says no: the library makes super-packets of the packets itself.
func (w *wireguard) Takes() (tcp, udp bool) { return false, false }

func (w *wireguard) Wake() error { return wake(w.device.File()) }

func (w *wireguard) File() *os.File { return w.device.File() }

func (w *wireguard) Close() error { return w.device.Close() }
