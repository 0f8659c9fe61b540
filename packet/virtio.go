package packet

import (
	"encoding/binary"
)

// VirtioRoom is the length in bytes of a virtio-net header (linux/virtio_net.h).
const VirtioRoom = 10

// VirtioHeader is what the kernel left undone in a packet (struct virtio_net_hdr
// in linux/virtio_net.h). The zero value says: nothing, the packet is complete.
type VirtioHeader struct {
	Flags      uint8
	GSOType    uint8
	HdrLen     uint16
	GSOSize    uint16
	CsumStart  uint16
	CsumOffset uint16
}

// ParseVirtioHeader reads the header at the start of b, which has VirtioRoom bytes
// at least. Its numbers are of the host's byte order, and nothing says that they fit
// the packet.
func ParseVirtioHeader(b []byte) VirtioHeader {
	return VirtioHeader{
		Flags:      b[0],
		GSOType:    b[1],
		HdrLen:     binary.NativeEndian.Uint16(b[2:]),
		GSOSize:    binary.NativeEndian.Uint16(b[4:]),
		CsumStart:  binary.NativeEndian.Uint16(b[6:]),
		CsumOffset: binary.NativeEndian.Uint16(b[8:]),
	}
}

// Put writes the header to b, which has VirtioRoom bytes at least.
func (v VirtioHeader) Put(b []byte) {
	b[0], b[1] = v.Flags, v.GSOType
	binary.NativeEndian.PutUint16(b[2:], v.HdrLen)
	binary.NativeEndian.PutUint16(b[4:], v.GSOSize)
	binary.NativeEndian.PutUint16(b[6:], v.CsumStart)
	binary.NativeEndian.PutUint16(b[8:], v.CsumOffset)
}
