package main_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/testnet"
)

// podTunnels are tunnels that pods make themselves, by what "ip link add" wants. The kernel
// that tests run on need not have them all.
var podTunnels = []struct{ kind, v4, v6 string }{
	{"vxlan", "type vxlan id 9 dstport 4789 local %s remote %s", "type vxlan id 9 dstport 4789 local %s remote %s"},
	{"geneve", "type geneve id 9 remote %[2]s", "type geneve id 9 remote %[2]s"},
	{"ipip", "type ipip local %s remote %s", "type ip6tnl mode any local %s remote %s"},
	{"gre", "type gre local %s remote %s", "type ip6gre local %s remote %s"},
}

// TCP through tunnels that end in pods: the kernel leaves inner checksums to be completed,
// of single packets and of what it has cut super-packets into.
func TestTunnelsInsidePods(t *testing.T) {
	t.Parallel()
	forEachEncapsulation(t, func(t *testing.T, cluster *testnet.Cluster) {
		a, b := addPod(t, cluster.Nodes()[0], "a"), addPod(t, cluster.Nodes()[1], "b")
		for _, tunnel := range podTunnels {
			for family, v6 := range families {
				t.Run(tunnel.kind+" over "+family, func(t *testing.T) {
					create := tunnel.v4
					if v6 {
						create = tunnel.v6
					}
					for i, ends := range [][2]*testnet.Pod{{a, b}, {b, a}} {
						link := fmt.Sprintf(create, addrOf(t, ends[0], v6), addrOf(t, ends[1], v6))
						err := ends[0].ExecAll(t.Context(), "ip link add tunnel0 "+link,
							"ip link set tunnel0 mtu 1280 up",
							fmt.Sprintf("ip addr add 172.31.0.%d/24 dev tunnel0", 1+i),
							fmt.Sprintf("ip addr add fd00:31::%d/64 dev tunnel0 nodad", 1+i))
						if err != nil && strings.Contains(err.Error(), "Unknown device type") {
							t.Skip("this kernel has no such device")
						}
						if err != nil {
							t.Fatal(err)
						}
						defer run(t, ends[0].Namespace, "ip", "link", "del", "tunnel0")
					}
					inner := []string{"172.31.0.2", "fd00:31::2"}
					if tunnel.kind == "ipip" && !v6 {
						inner = inner[:1]
					}
					for _, to := range inner {
						transfer(t, a.Namespace, b.Namespace, netip.MustParseAddr(to), 4<<20)
					}
				})
			}
		}
		expectNoChecksumErrors(t, a.Namespace, b.Namespace)
	})
}

// TCP behind IPv6 extension headers: the kernel hands over such super-packets too.
func TestTCPBehindExtensionHeaders(t *testing.T) {
	t.Parallel()
	forEachEncapsulation(t, func(t *testing.T, cluster *testnet.Cluster) {
		a, b := addPod(t, cluster.Nodes()[0], "a"), addPod(t, cluster.Nodes()[1], "b")
		// ip6_forward in the node's kernel takes the bytes behind the first header for TCP's
		// when it asks whether segments fit: of a random length, of up to 60.
		run(t, a.Namespace, "ip", "link", "set", "eth0", "mtu", "1380")
		for name, option := range map[string]int{"hop-by-hop": unix.IPV6_HOPOPTS, "destination": unix.IPV6_DSTOPTS} {
			t.Run(name, func(t *testing.T) {
				const size = 4 << 20
				done := serve(t, b.Namespace, func(conn net.Conn) error {
					n, err := io.Copy(io.Discard, conn)
					if err == nil && n != size {
						err = fmt.Errorf("%d of %d bytes arrived", n, size)
					}
					return err
				})
				dialer := net.Dialer{Timeout: time.Minute, Control: func(_, _ string, c syscall.RawConn) (err error) {
					options := string([]byte{0, 0, 1, 4, 0, 0, 0, 0}) // PadN (RFC 8200 §4.2)
					controlErr := c.Control(func(fd uintptr) {
						err = unix.SetsockoptString(int(fd), unix.IPPROTO_IPV6, option, options)
					})
					return errors.Join(controlErr, err)
				}}
				var conn net.Conn
				err := a.Do(func() (err error) {
					conn, err = dialer.DialContext(t.Context(), "tcp6", net.JoinHostPort(addrOf(t, b, true).String(), port))
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
					t.Fatal(err)
				}
				if _, err := conn.Write(make([]byte, size)); err != nil {
					t.Fatal(err)
				}
				conn.Close()
				if err := <-done; err != nil {
					t.Fatal(err)
				}
			})
		}
		expectNoChecksumErrors(t, a.Namespace, b.Namespace)
		got := report(t, cluster.Nodes()[0])
		if got.Drops["unfinished"] != 0 || got.Outbound.SuperPackets == 0 {
			t.Errorf("%d super-packets are forwarded, %d packets dropped as unfinished", got.Outbound.SuperPackets, got.Drops["unfinished"])
		}
	})
}

// forEachEncapsulation runs a test in a cluster of two nodes of either kind.
func forEachEncapsulation(t *testing.T, test func(t *testing.T, cluster *testnet.Cluster)) {
	for _, encapsulation := range []string{"sealed", "vxlan"} {
		t.Run(encapsulation, func(t *testing.T) {
			test(t, startCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: encapsulation == "sealed"}))
		})
	}
}
