package tun_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/poller"
	"weft/internal/testnet"
	"weft/packet"
	"weft/packet/packettest"
	"weft/router/tun"
)

const device = "weft0"

var (
	kernel = netip.MustParseAddr("10.244.1.1")
	remote = netip.MustParseAddr("10.244.2.5")
)

// open makes the device in a namespace of its own, with an address and a route.
func open(t *testing.T, driver string, n int) (*testnet.Namespace, []tun.Queue) {
	t.Helper()
	namespace, err := testnet.ForTest(t, testnet.Options{Prefix: "tun"}).AddNamespace(t.Context(), "host")
	if err != nil {
		t.Fatal(err)
	}
	var queues []tun.Queue
	err = namespace.Do(func() error {
		if queues, err = tun.Open(driver, device, n); err != nil {
			return err
		}
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		address := &netlink.Addr{IPNet: &net.IPNet{IP: kernel.AsSlice(), Mask: net.CIDRMask(32, 32)}}
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: &net.IPNet{IP: net.IP{10, 244, 2, 0}, Mask: net.CIDRMask(24, 32)}}
		return errors.Join(netlink.AddrAdd(link, address), netlink.LinkSetUp(link), netlink.RouteAdd(route))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, q := range queues {
			q.Close()
		}
	})
	return namespace, queues
}

// bind opens a UDP socket of the kernel's side.
func bind(t *testing.T, namespace *testnet.Namespace, port int) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	err := namespace.Do(func() (err error) {
		conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: kernel.AsSlice(), Port: port})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// readUDP returns the payload of the next packet to remote.
func readUDP(t *testing.T, q tun.Queue) []byte {
	t.Helper()
	return readPacket(t, q, func(_ []byte, h packet.Header) bool { return h.Destination == remote })[28:]
}

// readPacket returns the next packet that is meant; the kernel also sends router
// solicitations and the like.
func readPacket(t *testing.T, q tun.Queue, meant func(b []byte, h packet.Header) bool) []byte {
	t.Helper()
	watchdog := time.AfterFunc(time.Minute, func() { q.Close() })
	defer watchdog.Stop()
	for {
		frames, err := q.Read()
		if err != nil {
			t.Fatal(err)
		}
		for i := range frames {
			b := frames[i].Packet()
			if h, ok := packet.Parse(b); ok && meant(b, h) {
				return bytes.Clone(b)
			}
		}
	}
}

func frames(packets ...[]byte) []packet.Frame {
	frames := packet.NewFrames(len(packets), packet.MaxSize)
	for i, b := range packets {
		frames[i].Fill(copy(frames[i].Reset(), b))
	}
	return frames
}

func forEachDriver(t *testing.T, test func(t *testing.T, driver string)) {
	for _, driver := range tun.Drivers() {
		t.Run(driver, func(t *testing.T) { test(t, driver) })
	}
}

func TestPacketsPassBetweenTheKernelAndAQueue(t *testing.T) {
	forEachDriver(t, func(t *testing.T, driver string) {
		namespace, queues := open(t, driver, 1)
		conn := bind(t, namespace, 5000)
		if _, err := conn.WriteTo([]byte("out"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(remote, 7))); err != nil {
			t.Fatal(err)
		}
		if got := readUDP(t, queues[0]); string(got) != "out" {
			t.Errorf("read %q", got)
		}

		in := packettest.UDP(remote, kernel, 100)
		if n, err := queues[0].Write(frames(in)); n != 1 || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
		buf := make([]byte, 2000)
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		n, err := conn.Read(buf)
		if err != nil || !bytes.Equal(buf[:n], in[28:]) {
			t.Errorf("the kernel's socket got %x, %v", buf[:n], err)
		}
	})
}

// The kernel takes the other packets of a batch in which it refuses one.
func TestRefusedPacketLeavesTheRest(t *testing.T) {
	forEachDriver(t, func(t *testing.T, driver string) {
		namespace, queues := open(t, driver, 1)
		conn := bind(t, namespace, 5000)
		good, bad := packettest.UDP(remote, kernel, 100), []byte{0x00} // neither IPv4 nor IPv6
		n, err := queues[0].Write(frames(good, bad, packettest.UDP(remote, kernel, 90)))
		if n != 2 || err == nil {
			t.Errorf("Write = %d, %v; want 2 and the reason", n, err)
		}
		buf := make([]byte, 2000)
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		for range 2 {
			if _, err := conn.Read(buf); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestFlowsSpreadOverTheQueues(t *testing.T) {
	forEachDriver(t, func(t *testing.T, driver string) {
		namespace, queues := open(t, driver, 2)
		read := make(chan int)
		for i, q := range queues {
			go func() {
				for {
					if _, err := q.Read(); err != nil {
						return
					}
					read <- i
				}
			}()
		}
		seen := map[int]bool{}
		for port := 5000; len(seen) < 2; port++ { // each port is a flow, hashed by the kernel
			if port == 5256 {
				t.Fatalf("256 flows all came through the queues %v", seen)
			}
			conn := bind(t, namespace, port)
			if _, err := conn.WriteTo([]byte("flow"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(remote, 7))); err != nil {
				t.Fatal(err)
			}
			seen[<-read] = true
			conn.Close()
		}
		for _, q := range queues {
			q.Close()
		}
	})
}

func TestCloseWakesTheReaderAndRemovesTheDevice(t *testing.T) {
	forEachDriver(t, func(t *testing.T, driver string) {
		namespace, queues := open(t, driver, 1)
		time.AfterFunc(20*time.Millisecond, func() { queues[0].Close() })
		for {
			_, err := queues[0].Read()
			if errors.Is(err, os.ErrClosed) {
				break
			}
			if err != nil {
				t.Fatalf("Read = %v, want os.ErrClosed", err)
			}
		}
		if _, err := queues[0].Read(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("a Read after that = %v, want os.ErrClosed", err)
		}
		err := testnet.Wait(t.Context(), "the device is gone", func(ctx context.Context) error {
			return namespace.Do(func() error {
				if _, err := net.InterfaceByName(device); err == nil {
					return errors.New("it is still there")
				}
				return nil
			})
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestEveryReadOfADeletedDeviceFails(t *testing.T) {
	forEachDriver(t, func(t *testing.T, driver string) {
		namespace, queues := open(t, driver, 1)
		if _, err := namespace.Exec(t.Context(), "ip", "link", "delete", device); err != nil {
			t.Fatal(err)
		}
		watchdog := time.AfterFunc(time.Minute, func() { queues[0].Close() })
		failed := 0
		for range 200 { // what was queued before is still read
			if _, err := queues[0].Read(); err != nil {
				failed++
			}
		}
		if !watchdog.Stop() {
			t.Fatal("a Read of a deleted device waits")
		}
		if failed < 100 {
			t.Errorf("%d of 200 reads failed", failed)
		}
	})
}

// Packets wait in a queue whose reader was stopped, for the next one that reads.
func TestWakeEndsAReadAndKeepsPackets(t *testing.T) {
	forEachDriver(t, func(t *testing.T, driver string) {
		namespace, queues := open(t, driver, 1)
		conn := bind(t, namespace, 5000)
		for _, when := range []time.Duration{20 * time.Millisecond, 0} { // while Read waits, and before it
			woken := make(chan error, 1)
			time.AfterFunc(when, func() { woken <- queues[0].Wake() })
			if when == 0 {
				woken <- <-woken
			}
			var err error
			for err == nil { // the kernel's own packets may come first
				_, err = queues[0].Read()
			}
			if !errors.Is(err, poller.ErrWoken) || <-woken != nil {
				t.Fatalf("Read = %v, want poller.ErrWoken", err)
			}
			if _, err := conn.WriteTo([]byte("later"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(remote, 7))); err != nil {
				t.Fatal(err)
			}
			if got := readUDP(t, queues[0]); string(got) != "later" {
				t.Errorf("read %q", got)
			}
		}
	})
}

// A weftd that dies leaves its device with addresses and routes. The next one opens that, whatever
// its driver.
func TestADeviceThatWasLeftIsOpened(t *testing.T) {
	forEachDriver(t, func(t *testing.T, before string) {
		for _, now := range tun.Drivers() {
			namespace, queues := open(t, before, 2)
			if err := tun.Persist(queues[0], true); err != nil {
				t.Fatal(err)
			}
			index := linkIndex(t, namespace)
			for _, q := range queues {
				q.Close()
			}
			err := namespace.Do(func() (err error) {
				queues, err = tun.Open(now, device, 3)
				return err
			})
			if err != nil {
				t.Fatalf("%s after %s: %v", now, before, err)
			}
			if same := index == linkIndex(t, namespace); same != ((now == "water") == (before == "water")) {
				t.Errorf("%s after %s: the same device: %v", now, before, same)
			}
			for _, q := range queues {
				q.Close()
			}
			err = namespace.Do(func() error {
				_, err := tun.Remove(device)
				return err
			})
			if err != nil || linkIndex(t, namespace) != 0 {
				t.Errorf("%s after %s: the device is still there (Remove = %v)", now, before, err)
			}
		}
	})
}

// Packets that come between two processes are for the second one.
func TestAdoptedQueuesGoOn(t *testing.T) {
	forEachDriver(t, func(t *testing.T, driver string) {
		namespace, before := open(t, driver, 1)
		conn := bind(t, namespace, 5000)
		raw, err := before[0].File().SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var copied *os.File
		err = raw.Control(func(fd uintptr) {
			dup, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Error(err)
			}
			copied = os.NewFile(uintptr(dup), "copy")
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.WriteTo([]byte("meanwhile"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(remote, 7))); err != nil {
			t.Fatal(err)
		}
		after, err := prepare(t, driver).Adopt(device, []*os.File{copied})
		if err != nil {
			t.Fatal(err)
		}
		before[0].Close()
		defer after[0].Close()
		if got := readUDP(t, after[0]); string(got) != "meanwhile" {
			t.Errorf("read %q", got)
		}
		in := packettest.UDP(remote, kernel, 100)
		if n, err := after[0].Write(frames(in)); n != 1 || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	})
}

func prepare(t *testing.T, driver string) *tun.Spare {
	t.Helper()
	spare, err := tun.Prepare(driver, 1)
	if err != nil {
		t.Fatal(err)
	}
	return spare
}

func TestForeignQueuesAreNotAdopted(t *testing.T) {
	_, queues := open(t, "superpacket", 1)
	for _, what := range []struct{ driver, name, want string }{
		{"superpacket", "weft1", "it is a queue of weft0"},
		{"water", device, "with the flags"},
	} {
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := prepare(t, what.driver).Adopt(what.name, []*os.File{null}); err == nil || !strings.Contains(err.Error(), "it is no queue of a TUN device") {
			t.Errorf("Adopt = %v", err)
		}
		if _, err := prepare(t, what.driver).Adopt(what.name, []*os.File{queues[0].File()}); err == nil || !strings.Contains(err.Error(), what.want) {
			t.Errorf("Adopt = %v", err)
		}
		_, queues = open(t, "superpacket", 1) // Adopt has closed it
	}
}

// linkIndex is that of the device, or 0.
func linkIndex(t *testing.T, namespace *testnet.Namespace) (index int) {
	t.Helper()
	err := namespace.Do(func() error {
		link, err := netlink.LinkByName(device)
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			return nil
		}
		if err == nil {
			index = link.Attrs().Index
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return index
}

func TestADeviceOfAnotherKindIsRefused(t *testing.T) {
	for name, link := range map[string]netlink.Link{
		"veth":      &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: device}, PeerName: "other"},
		"tap":       &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: device}, Mode: netlink.TUNTAP_MODE_TAP},
		"one queue": &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: device}, Mode: netlink.TUNTAP_MODE_TUN},
	} {
		namespace, err := testnet.ForTest(t, testnet.Options{Prefix: "tun"}).AddNamespace(t.Context(), "host")
		if err != nil {
			t.Fatal(err)
		}
		err = namespace.Do(func() error {
			if err := netlink.LinkAdd(link); err != nil {
				t.Fatal(err)
			}
			_, err := tun.Open("superpacket", device, 1)
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "is not weft's: remove it (ip link del weft0)") {
			t.Errorf("%s: Open = %v", name, err)
		}
	}
}

func TestADeviceThatExistsIsNotShared(t *testing.T) {
	forEachDriver(t, func(t *testing.T, driver string) {
		namespace, _ := open(t, driver, 1)
		err := namespace.Do(func() error {
			_, err := tun.Open(driver, device, 1)
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "weft0 exists already: is another weftd running") {
			t.Errorf("Open = %v", err)
		}
	})
}

func TestAnUnknownDriverIsAnErrorThatNamesTheKnown(t *testing.T) {
	_, err := tun.Open("tap", device, 1)
	if err == nil || err.Error() != `unknown TUN driver "tap"; there are superpacket, water, wireguard` {
		t.Errorf("Open = %v", err)
	}
}
