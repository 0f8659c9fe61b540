package tun

import (
	"github.com/songgao/water"

	"weft/packet"
)

// waterQueue drives a queue by github.com/songgao/water: one packet a system call,
// without virtio-net headers. The kernel hands over packets that are complete.
type waterQueue struct {
	device *water.Interface
	frames []packet.Frame // one
	space  []byte         // the frame's
}

func openWater(name string, n int) ([]Queue, error) {
	return openEach(n, func() (Queue, error) { return newWater(name) })
}

func newWater(name string) (*waterQueue, error) {
	device, err := water.New(water.Config{
		DeviceType:             water.TUN,
		PlatformSpecificParams: water.PlatformSpecificParams{Name: name, MultiQueue: true},
	})
	if err != nil {
		return nil, err
	}
	q := &waterQueue{device: device, frames: packet.NewFrames(1, packet.MaxSize)}
	q.space = q.frames[0].Reset()
	return q, nil
}

func (q *waterQueue) Read() ([]packet.Frame, error) {
	n, err := q.device.Read(q.space)
	if err != nil {
		return nil, err
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

func (q *waterQueue) Close() error { return q.device.Close() }
