package router_test

import (
	"bytes"
	"fmt"
	"math"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/drop"
	"weft/encap"
	"weft/encap/vxlan"
	"weft/encap/vxlan/vxlantest"
	"weft/packet"
	"weft/packet/packettest"
	"weft/peer"
	"weft/router/tun/tuntest"
)

// next returns what arrives next.
func next[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		t.Fatal("nothing arrives")
		panic("unreachable")
	}
}

// virtioQueue reads frames that begin with a virtio-net header, as a TUN device's do.
type virtioQueue struct{ *tuntest.Queue }

func (q virtioQueue) Read() ([]packet.Frame, error) {
	frames, err := q.Queue.Read()
	for i := range frames {
		virtio := packet.ParseVirtioHeader(frames[i].Packet())
		frames[i].Pull(packet.VirtioRoom)
		frames[i].Virtio = virtio
	}
	return frames, err
}

func withVirtio(v packet.VirtioHeader, b []byte) []byte {
	frame := make([]byte, packet.VirtioRoom)
	v.Put(frame)
	return append(frame, b...)
}

// tcpTo is a packet of a pod of node1 with 3,000 bytes of payload.
func tcpTo(pod string) packettest.TCP {
	return packettest.TCP{
		From: netip.AddrPortFrom(netip.MustParseAddr("10.244.1.5"), 40000), To: netip.AddrPortFrom(netip.MustParseAddr(pod), 80),
		Seq: 1000, Flags: packettest.ACK, Window: 500, TTL: 63, DontFragment: true, Payload: bytes.Repeat([]byte("weft"), 750),
	}
}

// kernel3 is node3 as a kernel VXLAN device, for which checksums are completed.
func kernel3() *peer.Peer {
	kernel := *node3
	kernel.Kernel = true
	return &kernel
}

// The frames beside it are forwarded.
func TestImpossibleVirtioHeaderIsDropped(t *testing.T) {
	w, kernel, queue := newWire(), kernel3(), virtioQueue{tuntest.NewQueue()}
	n1 := startLane(t, queue, w.attach(node1.Endpoint), node1, node2, kernel)
	for peer, pod := range map[*peer.Peer]string{node2: "10.244.2.5", kernel: "10.244.3.5"} {
		arrived := w.attach(peer.Endpoint).queue
		good := udp("10.244.1.5", pod)
		super := tcpTo(pod).Super(1000)
		valid := super.Virtio
		for _, tc := range []struct {
			name   string
			change func(v *packet.VirtioHeader)
			packet []byte
			want   drop.Reason
		}{
			{"gso_size 0", func(v *packet.VirtioHeader) { v.GSOSize = 0 }, super.Packet(), drop.Unfinished},
			{"gso_size 1", func(v *packet.VirtioHeader) { v.GSOSize = 1 }, super.Packet(), drop.Unfinished},
			{"a checksum that starts behind the end", func(v *packet.VirtioHeader) { v.CsumStart = math.MaxUint16 }, super.Packet(), drop.Unfinished},
			{"a checksum that lies behind the end", func(v *packet.VirtioHeader) { v.CsumOffset = math.MaxUint16 }, super.Packet(), drop.Unfinished},
			{"an unknown type", func(v *packet.VirtioHeader) { v.GSOType = 9 }, super.Packet(), drop.Unfinished},
			{"no type but ECN", func(v *packet.VirtioHeader) { v.GSOType = unix.VIRTIO_NET_HDR_GSO_ECN }, super.Packet(), drop.Unfinished},
			{"headers and no payload", func(*packet.VirtioHeader) {}, tcpTo(pod).Bytes()[:40], drop.Malformed},
			{"one byte", func(*packet.VirtioHeader) {}, []byte{0x45}, drop.Malformed},
			{"an empty frame with segments to cut", func(*packet.VirtioHeader) {}, nil, drop.Malformed},
			{"an empty frame with a checksum to complete", func(v *packet.VirtioHeader) { v.GSOType = 0 }, nil, drop.Malformed},
			{"an empty frame", func(v *packet.VirtioHeader) { *v = packet.VirtioHeader{} }, nil, drop.Malformed},
		} {
			want := n1.Stats().Drops
			want[tc.want]++
			virtio := valid
			tc.change(&virtio)
			queue.Inject(withVirtio(packet.VirtioHeader{}, good), withVirtio(virtio, tc.packet), withVirtio(packet.VirtioHeader{}, good))
			for range 2 {
				if got := next(t, arrived).payload[vxlan.HeaderLen:]; !bytes.Equal(got, good) {
					t.Fatalf("%s, to %s: %x is sent", tc.name, peer.Name, got)
				}
			}
			if got := n1.Stats().Drops; got != want {
				t.Errorf("%s, to %s: the drops are %v, want %v", tc.name, peer.Name, got, want)
			}
		}
	}
}

// Such a packet stays whole.
func TestSegmentSizeBeyondPayload(t *testing.T) {
	w, kernel, queue := newWire(), kernel3(), virtioQueue{tuntest.NewQueue()}
	startLane(t, queue, w.attach(node1.Endpoint), node1, node2, kernel)
	for peer, pod := range map[*peer.Peer]string{node2: "10.244.2.5", kernel: "10.244.3.5"} {
		arrived := w.attach(peer.Endpoint).queue
		super := tcpTo(pod).Super(math.MaxUint16)
		queue.Inject(withVirtio(super.Virtio, super.Packet()))
		want := super.Packet()
		if peer.Kernel {
			want = tcpTo(pod).Bytes()
		}
		if got := next(t, arrived).payload[vxlan.HeaderLen:]; !bytes.Equal(got, want) {
			t.Errorf("to %s:\nsent %x\nwant %x", peer.Name, got[:40], want[:40])
		}
	}
}

// weftd must complete what the kernel left to do, for a weft peer and for a kernel peer.
func TestUnfinishableChecksumIsNotSent(t *testing.T) {
	w, kernel, queue := newWire(), kernel3(), virtioQueue{tuntest.NewQueue()}
	n1 := startLane(t, queue, w.attach(node1.Endpoint), node1, node2, kernel)
	to := map[string]<-chan datagram{
		"10.244.2.5": w.attach(node2.Endpoint).queue, "10.244.3.5": w.attach(kernel.Endpoint).queue,
	}
	impossible := []packet.VirtioHeader{
		{Flags: unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, CsumStart: math.MaxUint16, CsumOffset: 6},
		{Flags: unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, CsumStart: 20, CsumOffset: math.MaxUint16},
	}
	for pod, arrived := range to {
		good := udp("10.244.1.5", pod)
		for _, v := range impossible {
			queue.Inject(withVirtio(v, good), withVirtio(packet.VirtioHeader{}, good))
			if got := next(t, arrived).payload[vxlan.HeaderLen:]; !bytes.Equal(got, good) || len(arrived) > 0 {
				t.Errorf("%x is sent as %x", good, got)
			}
		}
	}
	if got := n1.Stats().Drops[drop.Unfinished]; got != 4 {
		t.Errorf("%d packets are dropped, want 4", got)
	}
}

// burst is a socket that receives everything at once, and then nothing.
type burst struct {
	*socket
	batch chan []encap.Received
}

// receiving is a socket on which these datagrams arrive from a node.
func receiving(s *socket, from *peer.Peer, datagrams ...[]byte) burst {
	b := burst{s, make(chan []encap.Received, 1)}
	var received []encap.Received
	for _, datagram := range datagrams {
		r := encap.Received{Frame: packet.NewFrames(1, packet.MaxSize)[0], From: from.Endpoint}
		r.Fill(copy(r.Reset(), datagram))
		received = append(received, r)
	}
	b.batch <- received
	return b
}

func (b burst) ReadBatch() ([]encap.Received, error) {
	select {
	case received := <-b.batch:
		return received, nil
	case <-b.closed:
		return nil, os.ErrClosed
	}
}

// written is a frame as it was handed to the kernel.
type written struct {
	packet []byte
	virtio packet.VirtioHeader
}

// joiner is a queue that takes super-packets or does not, and keeps what is left to do.
type joiner struct {
	*tuntest.Queue
	joins bool
	batch chan []written
}

func (q joiner) Takes() (tcp, udp bool) { return q.joins, q.joins }

func (q joiner) Write(frames []packet.Frame) (int, error) {
	var batch []written
	for i := range frames {
		whole := slices.Concat(append([][]byte{frames[i].Packet()}, frames[i].Rest...)...)
		batch = append(batch, written{whole, frames[i].Virtio})
	}
	q.batch <- batch
	return packettest.Count(frames), nil
}

// broken are packets to a pod of node2, each wrong in one bit that a checksum covers.
func broken() map[string][]byte {
	flip := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[(at+len(b))%len(b)] ^= 1
		return b
	}
	tcp := tcpTo("10.244.2.5")
	tcp.Payload = tcp.Payload[:1000]
	tcp.Seq += 1000 // the one that tcpStream goes on with
	udp4, udp6 := udp("10.244.1.5", "10.244.2.5"), udp("fd00:244:1::5", "fd00:244:2::5")
	none := bytes.Clone(udp6)
	none[46], none[47] = 0, 0
	return map[string][]byte{
		"TCP's checksum":                    flip(tcp.Bytes(), 37),
		"TCP's payload":                     flip(tcp.Bytes(), -1),
		"TCP's sequence number":             flip(tcp.Bytes(), 27),
		"UDP's checksum":                    flip(udp4, 27),
		"UDP's payload":                     flip(udp4, -1),
		"UDP's length":                      flip(udp4, 25),
		"UDP's checksum, over IPv6":         flip(udp6, 47),
		"UDP's payload, over IPv6":          flip(udp6, -1),
		"no UDP checksum, which IPv6 wants": none,
		"IPv4's checksum":                   flip(tcp.Bytes(), 11),
		"IPv4's time to live":               flip(udp4, 8),
	}
}

// tcpStream is the segment of the pods' stream that begins at offset.
func tcpStream(offset int) []byte {
	p := tcpTo("10.244.2.5")
	p.Seq += uint32(offset)
	p.Payload = p.Payload[:1000]
	return p.Bytes()
}

func TestWrongInnerChecksumStaysWrong(t *testing.T) {
	for name, wrong := range broken() {
		for _, joins := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, joining %v", name, joins), func(t *testing.T) {
				var datagrams [][]byte
				for _, inner := range [][]byte{tcpStream(0), wrong, tcpStream(1000), tcpStream(2000)} {
					datagrams = append(datagrams, vxlantest.Datagram(inner, node1, node2))
				}
				queue := joiner{tuntest.NewQueue(), joins, make(chan []written, 1)}
				startLane(t, queue, receiving(newWire().attach(node2.Endpoint), node1, datagrams...), node2, node1)
				delivered := next(t, queue.batch)
				i := slices.IndexFunc(delivered, func(w written) bool { return bytes.Equal(w.packet, wrong) })
				if i < 0 {
					t.Fatalf("%x is not among the %d frames handed to the kernel", wrong, len(delivered))
				}
				if delivered[i].virtio != (packet.VirtioHeader{}) {
					t.Errorf("the kernel is asked to complete the checksum: %+v", delivered[i].virtio)
				}
				if joined := len(delivered) < len(datagrams); joined != joins {
					t.Errorf("%d datagrams become %d frames", len(datagrams), len(delivered))
				}
			})
		}
	}
}

// A pod that may send raw packets chooses where its checksum lies, and what it will be.
func TestChecksumCannotOverwriteAddress(t *testing.T) {
	w, kernel, queue := newWire(), kernel3(), virtioQueue{tuntest.NewQueue()}
	n1 := startLane(t, queue, w.attach(node1.Endpoint), node1, kernel)
	arrived := w.attach(kernel.Endpoint).queue
	good := udp("10.244.1.5", "10.244.3.5")
	for _, field := range []uint16{12, 14, 16, 18} {
		v := packet.VirtioHeader{Flags: unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, CsumStart: 8, CsumOffset: field - 8}
		queue.Inject(withVirtio(v, good))
	}
	queue.Inject(withVirtio(packet.VirtioHeader{}, good))
	if got := next(t, arrived).payload[vxlan.HeaderLen:]; !bytes.Equal(got, good) {
		h, _ := packet.Parse(got)
		t.Errorf("a packet from %s to %s is sent", h.Source, h.Destination)
	}
	if got := n1.Stats().Drops[drop.Unfinished]; got != 4 {
		t.Errorf("%d packets are dropped, want 4", got)
	}
}

// As after GRO, or from a card that checks (CHECKSUM_UNNECESSARY in include/linux/skbuff.h).
func TestVerifiedChecksumIsSentUnchanged(t *testing.T) {
	w, kernel, queue := newWire(), kernel3(), virtioQueue{tuntest.NewQueue()}
	startLane(t, queue, w.attach(node1.Endpoint), node1, node2, kernel)
	for peer, pod := range map[*peer.Peer]string{node2: "10.244.2.5", kernel: "10.244.3.5"} {
		arrived := w.attach(peer.Endpoint).queue
		valid := udp("10.244.1.5", pod)
		queue.Inject(withVirtio(packet.VirtioHeader{Flags: unix.VIRTIO_NET_HDR_F_DATA_VALID}, valid))
		if got := next(t, arrived).payload[vxlan.HeaderLen:]; !bytes.Equal(got, valid) {
			t.Errorf("to %s: sent %x, want %x", peer.Name, got, valid)
		}
	}
}
