package main_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/explain"
	"weft/internal/status"
	"weft/internal/testnet"
	"weft/internal/warning"
)

// blackHole has a node lose the datagrams of more than limit bytes that arrive, without a word.
func blackHole(t *testing.T, n *testnet.Node, limit int) {
	t.Helper()
	run(t, n.Namespace, "nft", fmt.Sprintf("table netdev hole { chain in { type filter hook ingress device %s priority 0; ip protocol udp meta length > %d drop; ip6 nexthdr udp meta length > %d drop; }; }",
		testnet.UnderlayLink, limit, limit))
}

func closeHole(t *testing.T, n *testnet.Node) {
	t.Helper()
	run(t, n.Namespace, "nft", "delete", "table", "netdev", "hole")
}

// endless is a TCP connection that sends without end. It counts what arrives.
func endless(t *testing.T, from, to *testnet.Namespace, addr netip.Addr) *atomic.Int64 {
	t.Helper()
	arrived := new(atomic.Int64)
	_ = serve(t, to, func(conn net.Conn) error {
		b := make([]byte, 64<<10)
		for {
			n, err := conn.Read(b)
			arrived.Add(int64(n))
			if err != nil {
				return err
			}
		}
	})
	conn, err := from.Dial(t.Context(), "tcp", net.JoinHostPort(addr.String(), port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() { _, _ = io.Copy(conn, zeros{}) }()
	return arrived
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// expectProgress waits until so many more bytes have arrived.
func expectProgress(t *testing.T, what string, arrived *atomic.Int64, bytes int64) {
	t.Helper()
	before := arrived.Load()
	eventually(t, what, func() error {
		if n := arrived.Load() - before; n < bytes {
			return fmt.Errorf("only %d bytes have arrived", n)
		}
		return nil
	})
}

func hasWarning(r status.Report, code string) bool {
	return slices.ContainsFunc(r.Warnings, func(w warning.Warning) bool { return w.Code == code })
}

// probe runs `weft probe` on a node.
func probe(t *testing.T, n *testnet.Node, args ...string) string {
	t.Helper()
	return run(t, n.Namespace, filepath.Join(binDir, "weft"), append([]string{"--socket", filepath.Join(n.RunDir(), status.SocketName), "probe", "-c", "2"}, args...)...)
}

// TestPathMTUDropsInMidStream: the path loses large datagrams from one moment on, and sends no ICMP.
func TestPathMTUDropsInMidStream(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		sealed   bool
		v6       bool
		limit    int
		overhead int
	}{
		{"sealed, IPv4", true, false, 1300, 60},
		{"sealed, IPv6", true, true, 1400, 60},
		{"vxlan, IPv4", false, false, 1300, 50},
		{"vxlan, IPv6", false, true, 1400, 50},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: test.sealed, Wire: testnet.Wire{Offloads: testnet.Bare}})
			node1, node2 := cluster.Nodes()[0], cluster.Nodes()[1]
			for _, n := range cluster.Nodes() {
				run(t, n.Namespace, "ethtool", "-K", testnet.UnderlayLink, "gro", "off")
			}
			pod1, pod2 := addPod(t, node1, "a"), addPod(t, node2, "b")
			arrived := endless(t, pod1.Namespace, pod2.Namespace, addrOf(t, pod2, test.v6))
			expectProgress(t, "the stream begins", arrived, 1<<20)

			began := time.Now()
			blackHole(t, node2, test.limit)
			mtu := test.limit - test.overhead
			eventually(t, "the path MTU is found", func() error {
				r := report(t, node1)
				if path := r.Peers[0].Path; path.MTU != mtu || !hasWarning(r, "path_mtu") {
					return fmt.Errorf("path %+v, warnings %v", path, r.Warnings)
				}
				return nil
			})
			found := time.Since(began)
			expectProgress(t, "the stream goes on", arrived, 1<<20)
			t.Logf("the path MTU was found after %v, and the stream had gone on by a MiB after %v", found.Round(100*time.Millisecond), time.Since(began).Round(100*time.Millisecond))
			if route := run(t, node1.Namespace, "ip", "route", "show", "10.244.2.0/24"); !strings.Contains(route, fmt.Sprintf("mtu lock %d", mtu)) {
				t.Errorf("the route to the peer's pods is %s", route)
			}
			expectTooBig(t, pod1, addrOf(t, pod2, test.v6), mtu+1)
			if out := probe(t, node1); !strings.Contains(out, fmt.Sprintf("raise its MTU by %d bytes", 1500-test.limit)) {
				t.Errorf("weft probe: %s", out)
			}
			expectExplainedMTU(t, node1, addrOf(t, pod1, test.v6), addrOf(t, pod2, test.v6), mtu)
			if e := eventuallyHappened(t, node1, "path_mtu_reduced", "node2"); !strings.Contains(e.Text, "mtu=") {
				t.Errorf("the event is %+v", e)
			}
			if got := metric(t, node1, "weft_peers_path_mtu_reduced"); got != "1" {
				t.Errorf("paths with a reduced MTU: %s, want 1", got)
			}

			closeHole(t, node2)
			if out := probe(t, node1, "node2"); strings.Contains(out, "raise its MTU") {
				t.Errorf("weft probe after the repair: %s", out)
			}
			eventually(t, "the path MTU is restored", func() error {
				if r := report(t, node1); hasWarning(r, "path_mtu") {
					return errors.New(r.Warnings[0].Text)
				}
				return nil
			})
			if route := run(t, node1.Namespace, "ip", "route", "show", "10.244.2.0/24"); strings.Contains(route, "mtu") {
				t.Errorf("the route to the peer's pods is still %s", route)
			}
			eventuallyHappened(t, node1, "path_mtu_restored", "node2")
		})
	}
}

// expectExplainedMTU fails unless `weft explain` says that the path is why larger packets get lost.
func expectExplainedMTU(t *testing.T, n *testnet.Node, from, to netip.Addr, mtu int) {
	t.Helper()
	want := explain.Step{Part: "mtu", Text: fmt.Sprintf("packets of up to %d bytes: the path to the peer carries no larger ones (the device takes ", mtu)}
	e := explained(t, n, from.String(), to.String())
	if !slices.ContainsFunc(e.Steps, func(s explain.Step) bool { return s.Part == want.Part && strings.HasPrefix(s.Text, want.Text) }) {
		t.Errorf("weft explain has no step like %+v: %+v", want, e.Steps)
	}
}

// expectTooBig has a pod send UDP packets of so many bytes, headers included, until its kernel refuses
// them: then it has heard of the path's MTU.
func expectTooBig(t *testing.T, from *testnet.Pod, to netip.Addr, size int) {
	t.Helper()
	headers := 28
	if to.Is6() {
		headers = 48
	}
	conn, err := from.Dial(t.Context(), "udp", net.JoinHostPort(to.String(), "9999"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) {
		if to.Is6() {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a pod's UDP hears of the MTU", func() error {
		if _, err := conn.Write(make([]byte, size-headers)); errors.Is(err, unix.EMSGSIZE) {
			return nil
		}
		return errors.New("the pod's kernel takes the packet")
	})
}
