package encap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Each lane sends from a port of its own, so that cards, links and the receiving
// node's lanes distinguish a peer's lanes (RFC 7348 §5, RFC 7510 §3): what one lane
// sends stays together, and what several send is spread. The port's remainder by
// laneStride is the lane, and by the receiver's number of lanes where it arrives (unless
// Spread says otherwise).
const (
	firstSource = 49152 // the dynamic ports (RFC 6335 §6)
	lastSource  = 65535

	// laneStride is how many ports are for one daemon; tun.lanes is at most as many.
	laneStride = 16
)

// openSource opens the socket from which a lane that receives at addr sends. The port
// is the same after a restart, unless another program has it.
func openSource(ctx context.Context, addr netip.AddrPort, lane int, mark uint32) (*net.UDPConn, error) {
	const tries, blocks = 64, (lastSource + 1 - firstSource) / laneStride
	var err error
	for try := range tries {
		block := (int(addr.Port()) + try) % blocks
		port := uint16(firstSource + block*laneStride + lane%laneStride)
		var udp *net.UDPConn
		if udp, err = listenOne(ctx, netip.AddrPortFrom(addr.Addr(), port), false, mark); err == nil {
			return udp, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	return nil, fmt.Errorf("open a UDP port between %d and %d to send from: %w", firstSource, lastSource, err)
}

// dropAll has the kernel drop all that arrives at a socket that weft only sends from.
func dropAll(fd int) error {
	return attach(fd, unix.SO_ATTACH_FILTER, []bpf.Instruction{bpf.RetConstant{Val: 0}})
}

// Spread is how a datagram is assigned to one of the lanes that share a port: by a number
// that it has in the masked bits of a byte of its payload, or with no mask by its source
// port. The number's remainder is the lane.
type Spread struct {
	Offset int
	Mask   uint8
}

// spread has the kernel choose among n sockets that share a port, of which fd is one
// (socket(7), SO_ATTACH_REUSEPORT_CBPF). Without, it would choose by a hash, in which
// lanes of one peer often meet. A datagram that is too short goes to lane 0.
func spread(fd, n int, s Spread) error {
	if s.Mask != 0 {
		return attach(fd, unix.SO_ATTACH_REUSEPORT_CBPF, []bpf.Instruction{
			bpf.LoadAbsolute{Off: uint32(s.Offset), Size: 1}, // from the UDP payload on
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: uint32(s.Mask)},
			bpf.ALUOpConstant{Op: bpf.ALUOpMod, Val: uint32(n)},
			bpf.RetA{},
		})
	}
	return spreadByPort(fd, n)
}

func spreadByPort(fd, n int) error {
	const (
		network = 0xfff00000 // SKF_NET_OFF in linux/filter.h: from the IP header on
		ipv6Len = 40
	)
	return attach(fd, unix.SO_ATTACH_REUSEPORT_CBPF, []bpf.Instruction{
		bpf.LoadAbsolute{Off: network, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 6, SkipTrue: 3},
		bpf.LoadMemShift{Off: network}, // IPv4: X = the header's length
		bpf.LoadIndirect{Off: network, Size: 2},
		bpf.Jump{Skip: 1},
		bpf.LoadAbsolute{Off: network + ipv6Len, Size: 2}, // IPv6
		bpf.ALUOpConstant{Op: bpf.ALUOpMod, Val: uint32(n)},
		bpf.RetA{},
	})
}

func attach(fd, option int, program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, option, &fprog); err != nil {
		return fmt.Errorf("attach a filter to a UDP socket: %w", err)
	}
	return nil
}
