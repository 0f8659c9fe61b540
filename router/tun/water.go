package tun

import (
	"errors"
	"fmt"
	"os"

	"github.com/songgao/water"
	"golang.org/x/sys/unix"

	"weft/packet"
)

// waterQueue drives a queue by github.com/songgao/water: one packet a system call,
// without virtio-net headers. The kernel hands over packets that are complete.
type waterQueue struct {
	device *water.Interface
	file   *os.File       // the device's
	frames []packet.Frame // one
	space  []byte         // the frame's
}

func openWater(name string) (Queue, error) {
	device, err := water.New(water.Config{
		DeviceType:             water.TUN,
		PlatformSpecificParams: water.PlatformSpecificParams{Name: name, MultiQueue: true},
	})
	if err != nil {
		return nil, err
	}
	return newWater(device, device.ReadWriteCloser.(*os.File)), nil
}

// prepareWater prepares nothing: one frame is made at once.
func prepareWater() func(fd int) (Queue, error) { return adoptWater }

// adoptWater takes over a queue that the library has opened in another process.
func adoptWater(fd int) (Queue, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("make the queue non-blocking: %w", err), unix.Close(fd))
	}
	file := os.NewFile(uintptr(fd), "/dev/net/tun")
	return newWater(&water.Interface{ReadWriteCloser: file}, file), nil
}

func newWater(device *water.Interface, file *os.File) *waterQueue {
	q := &waterQueue{device: device, file: file, frames: packet.NewFrames(1, packet.MaxSize)}
	q.space = q.frames[0].Reset()
	return q
}

func (q *waterQueue) Read() ([]packet.Frame, error) {
	n, err := q.device.Read(q.space)
	if err != nil {
		return nil, woken(q.file, err)
	}
	q.frames[0].Reset()
	q.frames[0].Fill(n)
	return q.frames, nil
}

func (q *waterQueue) Write(frames []packet.Frame) (int, error) {
	var refused error
	written := 0
	for i := range frames {
		if !frames[i].Complete() {
			continue
		}
		if _, err := q.device.Write(frames[i].Packet()); err != nil {
			refused = err
			continue
		}
		written++
	}
	return written, refused
}

func (q *waterQueue) Takes() (tcp, udp bool) { return false, false }

func (q *waterQueue) Wake() error { return wake(q.file) }

func (q *waterQueue) File() *os.File { return q.file }

func (q *waterQueue) Close() error { return q.device.Close() }
