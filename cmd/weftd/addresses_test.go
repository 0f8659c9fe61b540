package main_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/nodefile"
	"weft/internal/testnet"
)

// TestPodsReachFurtherAddressesOfNodes: pods reach the addresses that another node has beside
// its endpoint's through the overlay, and keep their connections while weftd restarts. One that
// the node only claims is no different from any other outside.
func TestPodsReachFurtherAddressesOfNodes(t *testing.T) {
	t.Parallel()
	cluster := newCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true, Configure: func(weft map[string]any) {
		weft["listen"] = "[::]:9338"
	}})
	node1, node2 := cluster.Nodes()[0], cluster.Nodes()[1]
	second4, second6 := netip.MustParseAddr("192.168.77.102"), netip.MustParseAddr("fd00:77::2")
	run(t, node2.Namespace, "ip", "address", "add", second4.String()+"/32", "dev", testnet.UnderlayLink)
	entry1, entry2 := node1.Entry(), node2.Entry()
	entry1.Addresses = []netip.Addr{netip.MustParseAddr("fd00:77::1")}
	entry2.Addresses = []netip.Addr{second4, second6, testnet.OutsideAddr4}
	for _, node := range cluster.Nodes() {
		if err := node.SetNodes([]testnet.NodeEntry{entry1, entry2}); err != nil {
			t.Fatal(err)
		}
	}
	if err := cluster.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	pod := addPod(t, node1, "a")
	proven := func() error {
		behind := report(t, node1).Peers[0].Prefixes
		for _, addr := range []netip.Addr{second4, second6} {
			if !slices.Contains(behind, netip.PrefixFrom(addr, addr.BitLen())) {
				return fmt.Errorf("behind node2 is %v", behind)
			}
		}
		return nil
	}
	eventually(t, "the addresses to be proven", proven)

	frames := record(t, node1.Namespace, testnet.UnderlayLink, func() {
		for _, addr := range []netip.Addr{second4, second6} {
			own := addrOf(t, pod, addr.Is6())
			if got := talk(t, pod.Namespace, netip.Addr{}, node2.Namespace, addr); got != own {
				t.Errorf("node2 sees the pod at %s as %s at %s", own, got, addr)
			}
			if got := talk(t, node2.Namespace, addr, pod.Namespace, own); got != node2Overlay(addr) {
				t.Errorf("the pod sees %s of node2 as %s", addr, got)
			}
		}
		exchange := startExchange(t, pod.Namespace, node2.Namespace, second4)
		exchange.firstAfter(t, time.Now())
		node1.Kill()
		if err := node1.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		exchange.firstAfter(t, time.Now())
		if err := proven(); err != nil {
			t.Errorf("after a restart: %v", err)
		}
		exchange.stop(t)
	})
	for _, frame := range frames {
		if bytes.Contains(frame, []byte(marker[:8])) {
			t.Fatalf("what passes between a pod and a node can be read on the underlay: %x", frame)
		}
	}

	if got := talk(t, pod.Namespace, netip.Addr{}, cluster.Outside, testnet.OutsideAddr4); got != node1.Entry().Endpoint.Addr() {
		t.Errorf("a host that node2 claims to be sees a pod as %s", got)
	}

	// Without the claim, the address is the outside's again.
	for _, node := range cluster.Nodes() {
		if err := node.SetNodes([]testnet.NodeEntry{node1.Entry(), node2.Entry()}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the address to be the outside's", func() error {
		if err := proven(); err == nil {
			return fmt.Errorf("it is still behind node2")
		}
		return nil
	})
	eventually(t, "node2 to see node1", func() error {
		if got := talk(t, pod.Namespace, netip.Addr{}, node2.Namespace, second4); got != node1.Entry().Endpoint.Addr() {
			return fmt.Errorf("it sees the pod as %s", got)
		}
		return nil
	})
}

// TestProvenAddressesNeedKeys: what a sealed weftd has left in the run directory is nothing to one
// whose peers can't prove anything. With keys, a file that can't be read costs no more than what
// was proven.
func TestProvenAddressesNeedKeys(t *testing.T) {
	t.Parallel()
	second := netip.MustParseAddr("192.168.77.102")
	for _, tt := range []struct {
		name   string
		sealed bool
		file   string
		behind bool
	}{
		{"sealed", true, `{"192.168.77.102": "KEY"}`, true},
		{"sealed, truncated", true, `{"192.168.77.102": "KE`, false},
		{"sealed, empty", true, "", false},
		{"sealed, another cluster's", true, `{"192.168.77.102": "` + strings.Repeat("7", 64) + `"}`, false},
		{"vxlan", false, `{"192.168.77.102": "KEY"}`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cluster := newCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: tt.sealed})
			node1, node2 := cluster.Nodes()[0], cluster.Nodes()[1]
			entry2 := node2.Entry()
			entry2.Addresses = []netip.Addr{second}
			if entry2.Key == "" {
				entry2.Key = strings.Repeat("7", 64)
			}
			if err := node1.SetNodes([]testnet.NodeEntry{node1.Entry(), entry2}); err != nil {
				t.Fatal(err)
			}
			file := strings.ReplaceAll(tt.file, "KEY", entry2.Key)
			if err := os.WriteFile(filepath.Join(node1.RunDir(), nodefile.ProvenName), []byte(file), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := node1.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := slices.Contains(report(t, node1).Peers[0].Prefixes, netip.PrefixFrom(second, 32)); got != tt.behind {
				t.Errorf("behind node2 is %v", report(t, node1).Peers[0].Prefixes)
			}
		})
	}
}

func node2Overlay(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.MustParseAddr("10.244.2.1")
	}
	return netip.MustParseAddr("fd00:244:2::1")
}

// talk sends the marker in both directions over TCP, and returns where the listening end sees the other.
func talk(t *testing.T, from *testnet.Namespace, source netip.Addr, to *testnet.Namespace, addr netip.Addr) (seen netip.Addr) {
	t.Helper()
	done := serve(t, to, func(conn net.Conn) error {
		seen = conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		_, err := io.CopyN(conn, conn, int64(len(marker)))
		return err
	})
	dialer := &net.Dialer{Timeout: testnet.WaitLimit}
	if source.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	var conn net.Conn
	if err := from.Do(func() (err error) {
		conn, err = dialer.DialContext(t.Context(), "tcp", net.JoinHostPort(addr.String(), port))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(testnet.WaitLimit))
	if _, err := conn.Write([]byte(marker)); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, len(marker))
	if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != marker {
		t.Fatalf("%s answers %q, %v", addr, answer, err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return seen
}
