package router

import (
	"testing"

	"weft/drop"
	"weft/packet"
)

func TestCaptureHasEveryPacketAndWhatBecameOfIt(t *testing.T) {
	for name, lane := range map[string]func() (batch func() error, capturedBy func(*Capture), parsed int){
		"outbound": func() (func() error, func(*Capture), int) {
			o := newOutbound(t)
			return o.batch, o.capture.Store, 65
		},
		"inbound": func() (func() error, func(*Capture), int) {
			in := newInbound(t)
			return in.batch, in.capture.Store, 64 // what can't be decoded is no packet
		},
	} {
		t.Run(name, func(t *testing.T) {
			batch, capturedBy, want := lane()
			c := &Capture{SnapLen: 40, Room: 1 << 20, Packets: make(chan Captured, 100)}
			capturedBy(c)
			_ = batch()
			if len(c.Packets) != want || c.Lost.Load() != 0 {
				t.Fatalf("%d packets captured, %d lost", len(c.Packets), c.Lost.Load())
			}
			for range want {
				p := <-c.Packets
				if p.Outbound != (name == "outbound") || len(p.Data) != min(40, p.Length) || p.Length < 38 || p.Data[0]>>4 != 4 && p.Data[0]>>4 != 6 {
					t.Errorf("%+v", p)
				}
				if dropped := p.Reason != drop.None; dropped != (p.Peer == "") || dropped && p.Reason != drop.NoRoute {
					t.Errorf("%v to or from %q", p.Reason, p.Peer)
				}
			}
			c.Dropped = true
			_ = batch()
			if len(c.Packets) != want-64 {
				t.Errorf("%d dropped packets captured", len(c.Packets))
			}
			capturedBy(nil)
			_ = batch()
			if len(c.Packets) != want-64 {
				t.Error("the capture goes on after its end")
			}
		})
	}
}

// TestSlowCaptureHoldsUpNoLane: nobody reads.
func TestSlowCaptureHoldsUpNoLane(t *testing.T) {
	o := newOutbound(t)
	c := &Capture{SnapLen: 1, Room: 1 << 20, Packets: make(chan Captured, 1), Match: func(_ packet.Header, parsed bool) bool { return parsed }}
	o.capture.Store(c)
	_ = o.batch()
	_ = o.batch()
	if got := c.Lost.Load(); got != 129 {
		t.Errorf("%d packets count as lost, of 130 of which one fits", got)
	}
	if got := o.counters.packets.Load(); got != 128 {
		t.Errorf("%d packets were forwarded, of 128", got)
	}
}

// TestCaptureIsBoundedInBytes: what nobody reads takes no more memory than Room, and one packet.
func TestCaptureIsBoundedInBytes(t *testing.T) {
	o := newOutbound(t)
	c := &Capture{SnapLen: 40, Room: 400, Packets: make(chan Captured, 1000)}
	o.capture.Store(c)
	_ = o.batch()
	if n := len(c.Packets); n != 10 || c.Lost.Load() != 55 {
		t.Errorf("%d packets wait, and %d are lost", n, c.Lost.Load())
	}
	for range 10 {
		c.Taken(<-c.Packets)
	}
	_ = o.batch()
	if n := len(c.Packets); n != 10 {
		t.Errorf("%d packets wait after the others were read", n)
	}
}
