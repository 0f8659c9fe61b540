package encap_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"weft/encap"
	"weft/internal/testnet"
)

// TestARunOfMessagesIsOneToo: what is no packet may go out in a run, with the source that packets have.
func TestARunOfMessagesIsOneToo(t *testing.T) {
	overEachFamily(t, func(t *testing.T, bind, dial string) {
		from, to := listen(t, bind+":0", 1)[0], listen(t, bind+":0", 1)[0]
		from.SendFrom(netip.MustParseAddr(dial))
		if err := from.WriteRunFromLane([]byte("0123456789"), 4, peerAt(to, dial).Endpoint); err != nil {
			t.Fatal(err)
		}
		got, sender := receive(t, to, 3)
		if want := []string{"0123", "4567", "89"}; !slices.Equal(got, want) || to.Joined() != 3 {
			t.Errorf("received %q, %d of them joined; want %q", got, to.Joined(), want)
		}
		if want := netip.AddrPortFrom(netip.MustParseAddr(dial), from.SourcePort()); sender != want {
			t.Errorf("they come from %s, want %s", sender, want)
		}
	})
}

// forgeTooBig sends to an address what a router sends that can't forward a datagram from
// its port to a peer's: "fragmentation needed" (RFC 1191) or "packet too big" (RFC 8201).
func forgeTooBig(from, to netip.AddrPort, mtu int) error {
	udp := binary.BigEndian.AppendUint16(nil, from.Port())
	udp = binary.BigEndian.AppendUint16(udp, to.Port())
	udp = append(udp, 5, 120, 0, 0) // 1,400 bytes
	family, protocol := unix.AF_INET, unix.IPPROTO_ICMP
	var message []byte
	var target unix.Sockaddr
	if from.Addr().Is4() {
		quote := []byte{0x45, 0, 5, 140, 0, 1, 0x40, 0, 63, 17, 0, 0}
		quote = append(append(quote, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
		message = append([]byte{3, 4, 0, 0, 0, 0, byte(mtu >> 8), byte(mtu)}, append(quote, udp...)...)
		var sum uint32
		for i := 0; i < len(message); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(message[i:]))
		}
		binary.BigEndian.PutUint16(message[2:], ^uint16(sum+sum>>16))
		target = &unix.SockaddrInet4{Addr: from.Addr().As4()}
	} else {
		family, protocol = unix.AF_INET6, unix.IPPROTO_ICMPV6
		quote := []byte{0x60, 0, 0, 0, 5, 120, 17, 64}
		quote = append(append(quote, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
		message = append([]byte{2, 0, 0, 0, 0, 0, byte(mtu >> 8), byte(mtu)}, append(quote, udp...)...)
		target = &unix.SockaddrInet6{Addr: from.Addr().As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW, protocol)
	if err != nil {
		return err
	}
	return errors.Join(unix.Sendto(fd, message, 0, target), unix.Close(fd))
}

// Anyone can forge the ICMP messages from which the kernel learns a path's MTU. They
// must not make datagrams smaller, whichever of weftd's ports they quote.
func TestForgedPathMTUShrinksNothing(t *testing.T) {
	host, others := hosts(t, 1)
	for _, command := range []string{"ip addr add fd00:9::1/64 dev link1 nodad", "ip addr add fd00:9::2/64 dev eth0 nodad"} {
		n := host
		if strings.Contains(command, "eth0") {
			n = others[0]
		}
		fields := strings.Fields(command)
		if _, err := n.Exec(t.Context(), fields[0], fields[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		listen, from, to string
		mtu              int
	}{
		{"0.0.0.0", "10.9.1.1", "10.9.1.2", 552},
		{"[::]", "10.9.1.1", "10.9.1.2", 552},
		{"[::]", "fd00:9::1", "fd00:9::2", 1280},
	} {
		t.Run(tc.from+" listening at "+tc.listen, func(t *testing.T) {
			from, to := listenIn(t, host, tc.listen+":0"), listenIn(t, others[0], tc.listen+":0")
			target := peerAt(to, tc.to)
			for _, port := range []uint16{from.SourcePort(), from.LocalAddr().Port()} {
				if _, err := host.Exec(t.Context(), "ip", "route", "flush", "cache"); err != nil {
					t.Fatal(err)
				}
				quoted := netip.AddrPortFrom(netip.MustParseAddr(tc.from), port)
				err := testnet.Wait(t.Context(), "a path MTU in the kernel's cache", func(ctx context.Context) error {
					if err := others[0].Do(func() error { return forgeTooBig(quoted, target.Endpoint, tc.mtu) }); err != nil {
						return err
					}
					route, err := host.Exec(ctx, "ip", "route", "get", tc.to)
					if err == nil && !strings.Contains(route, fmt.Sprint("mtu ", tc.mtu)) {
						err = fmt.Errorf("the route is %s", route)
					}
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				payloads := append(numbered(40, 1400), []byte("one more, alone"))
				if sent := from.WriteBatch(batch(target, payloads...)); sent.Refused != 0 {
					t.Errorf("port %d quoted: WriteBatch = %+v", port, sent)
				}
				expectReceived(t, to, payloads)
				handshake := numbered(1, 1280)
				if err := from.WriteTo(handshake[0], target.Endpoint); err != nil {
					t.Errorf("port %d quoted: %v", port, err)
				}
				expectReceived(t, to, handshake)
			}
		})
	}
}

// QUIC finds the largest datagram that fits by this error.
func TestTooLargeForTheDeviceIsEMSGSIZE(t *testing.T) {
	host, others := hosts(t, 1)
	from, to := listenIn(t, host, "0.0.0.0:0"), listenIn(t, others[0], "0.0.0.0:0")
	target := peerAt(to, "10.9.1.2")
	tooLarge := make([]byte, 1500-28+1)
	if err := from.WriteTo(tooLarge, target.Endpoint); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("WriteTo = %v, want EMSGSIZE", err)
	}
	if sent := from.WriteBatch(batch(target, tooLarge)); sent.Refused != 1 || sent.Err != unix.EMSGSIZE {
		t.Errorf("WriteBatch = %+v, want 1 refused by EMSGSIZE", sent)
	}
	if err := from.WriteTo(tooLarge[1:], target.Endpoint); err != nil {
		t.Error(err)
	}
}

func TestEverySocketHasTheMark(t *testing.T) {
	overEachFamily(t, func(t *testing.T, bind, _ string) {
		conns, err := encap.Listen(t.Context(), netip.MustParseAddrPort(bind+":0"), 2, encap.Options{Mark: 1 << 29})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range conns {
			if receiving, sending := encap.Marks(t, c); receiving != 1<<29 || sending != 1<<29 {
				t.Errorf("the sockets have marks %#x and %#x", receiving, sending)
			}
			c.Close()
		}
	})
}

// In a user namespace, as unprivileged LXC containers have, the buffers can't pass the
// machine's limits. Packets flow all the same.
func TestSmallBuffersAreNoReasonToEnd(t *testing.T) {
	if short := listen(t, "127.0.0.1:0", 1)[0].ShortBuffers(); short != nil {
		t.Errorf("with CAP_NET_ADMIN: %v", short)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its capabilities
		none := make([]unix.CapUserData, 2)
		if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
			done <- err
			return
		}
		conns, err := encap.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), 1, encap.Options{})
		if err != nil {
			done <- err
			return
		}
		done <- errors.Join(conns[0].ShortBuffers(), conns[0].Close())
	}()
	short := <-done
	for _, limit := range []string{"/proc/sys/net/core/rmem_max", "/proc/sys/net/core/wmem_max"} {
		if n, err := os.ReadFile(limit); err != nil || len(n) > len("8000000\n") {
			t.Skipf("%s is %s, %v: no buffer would be small", limit, n, err)
		}
	}
	for _, word := range []string{"net.core.rmem_max=8388608", "net.core.wmem_max=8388608", "receive buffer has "} {
		if short == nil || !strings.Contains(short.Error(), word) {
			t.Errorf("without CAP_NET_ADMIN: %v; this must contain %q", short, word)
		}
	}
}
