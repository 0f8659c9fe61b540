package tun_test

import (
	"bytes"
	"net/netip"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"weft/packet"
	"weft/packet/packettest"
)

// refuseJoined has the kernel answer EINVAL to this thread when it writes several pieces
// at once, as super-packets are (seccomp(2)). The thread must end with its goroutine.
func refuseJoined() error {
	const (
		numberAt, thirdArgumentAt = 0, 32 // in struct seccomp_data
		refuse                    = 0x00050000 | uint32(unix.EINVAL)
		allow                     = 0x7fff0000
	)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: numberAt},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 3, K: unix.SYS_WRITEV},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: thirdArgumentAt},
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, Jt: 0, Jf: 1, K: 2},
		{Code: unix.BPF_RET | unix.BPF_K, K: refuse},
		{Code: unix.BPF_RET | unix.BPF_K, K: allow},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}

// Where the kernel refuses super-packets that were joined from datagrams, nothing of them
// is lost, and no more of the kind are made.
func TestRefusedJoinsAreWrittenSingly(t *testing.T) {
	in, out := routed(t)
	var streams [][][]byte // of each kind
	for _, addrs := range [][2]string{{"10.244.1.2", "10.244.2.3"}, {"fd00:244:1::2", "fd00:244:2::3"}} {
		from, to := netip.MustParseAddr(addrs[0]), netip.MustParseAddr(addrs[1])
		var tcp, udp [][]byte
		for i := range 40 {
			p := packettest.TCP{From: netip.AddrPortFrom(from, 40000), To: netip.AddrPortFrom(to, 80), Seq: uint32(1000 * i), Ack: 9,
				Flags: packettest.ACK, Window: 1000, TTL: 64, DontFragment: true, Payload: bytes.Repeat([]byte{byte(i)}, 1000)}
			tcp = append(tcp, p.Bytes())
			udp = append(udp, packettest.UDP(from, to, 500))
		}
		streams = append(streams, tcp, udp)
	}
	type result struct {
		written  int
		err      error
		tcp, udp bool
	}
	results := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked
		if err := refuseJoined(); err != nil {
			results <- result{err: err}
			return
		}
		for _, packets := range streams {
			c := packet.Coalescer{TCP: true, UDP: true}
			for _, f := range frames(packets...) {
				c.Add(f)
			}
			var r result
			r.written, r.err = in.Write(c.Frames())
			r.tcp, r.udp = in.Takes()
			results <- r
		}
	}()
	for i, packets := range streams {
		r := <-results
		if r.written != len(packets) {
			t.Fatalf("stream %d: Write = %d, %v, want %d", i, r.written, r.err, len(packets))
		}
		if r.tcp || r.udp != (i == 0) {
			t.Errorf("after stream %d super-packets are taken of TCP %v, of UDP %v", i, r.tcp, r.udp)
		}
		for j, want := range packets {
			h, _ := packet.Parse(want)
			got := readFrom(t, out, h.Source.String())
			for _, b := range [][]byte{got, want} { // the kernel routes
				if packet.IsIPv4(b) {
					b[4], b[5], b[8], b[10], b[11] = 0, 0, 0, 0, 0 // no identification is needed where DF is set
				} else {
					b[7] = 0
				}
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("stream %d, packet %d is\n%.100x, want\n%.100x", i, j, got, want)
			}
		}
	}
}
