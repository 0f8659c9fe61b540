package monitoring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/testnet"
)

// lab is a cluster that a Prometheus watches.
type lab struct {
	*testing.T
	network    *testnet.Net
	cluster    *testnet.Cluster
	etcd       *testnet.Etcd // nil where the list of nodes is a file
	prometheus *server
	binDir     string
	entries    []testnet.NodeEntry
	pods       []*testnet.Pod

	// vxlan is a node that is configured so when it starts the next time.
	vxlan string

	began time.Time       // of the present step
	fired map[string]bool // alerts that were awaited
}

// ghost is the endpoint of the node that does not exist. Its address is the host outside's.
var ghost = netip.MustParseAddrPort("192.168.77.50:9338")

// newLab makes a cluster, and starts nothing in it.
func newLab(t *testing.T, nodes int) *lab {
	t.Helper()
	l := &lab{T: t, binDir: t.TempDir(), began: time.Now(), fired: map[string]bool{}}
	l.build("v1")
	l.network = testnet.ForTest(t, testnet.Options{Prefix: "weft-monitoring", BinDir: l.binDir})
	cluster, err := l.network.NewCluster(t.Context(), testnet.ClusterOptions{Nodes: nodes, Sealed: true, Configure: l.configure})
	l.check(err)
	l.cluster = cluster
	return l
}

func (l *lab) start() {
	l.Helper()
	l.check(l.cluster.Start(l.Context()))
	l.prometheus = startPrometheus(l.T, l.network, l.cluster)
}

// startThree starts three nodes with a pod each. Their list has a fourth one, which does not exist.
func (l *lab) startThree() {
	l.Helper()
	for _, node := range l.cluster.Nodes() {
		l.entries = append(l.entries, node.Entry())
	}
	l.entries = append(l.entries, testnet.NodeEntry{Name: "node4", Endpoint: ghost, Key: strings.Repeat("4", 64), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.50.0/24")}})
	for n := range 3 {
		l.list(n+1, l.entries)
	}
	l.start()
	for n := range 3 {
		l.addPod(n + 1)
	}
}

// building is held by the test that builds.
var building sync.Mutex

// build builds weft's programs, with another version than they had.
func (l *lab) build(version string) {
	l.Helper()
	building.Lock()
	defer building.Unlock()
	built := "../../bin/test/monitoring-" + version + "/"
	build := exec.CommandContext(l.Context(), "go", "build", "-ldflags", "-X weft/internal/version.Version="+version, "-o", built, "weft/cmd/weftd", "weft/cmd/weft-cni")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		l.Fatalf("build weft: %v\n%s", err, out)
	}
	for _, program := range []string{"weftd", "weft-cni"} {
		path := filepath.Join(l.binDir, program)
		// A program that runs is replaced, and not written.
		text := read(l.T, built+program)
		l.check(os.WriteFile(path+".new", text, 0o755))
		l.check(os.Rename(path+".new", path))
	}
}

// configure has Prometheus reach the node, and leaves node2 two addresses for pods.
func (l *lab) configure(weft map[string]any) {
	weft["metrics"] = map[string]any{"listen": "0.0.0.0:" + metricsPort}
	if weft["node"] == "node2" {
		weft["ipam"] = map[string]any{"reserved": []string{"10.244.2.4/30", "10.244.2.8/29", "10.244.2.16/28", "10.244.2.32/27", "10.244.2.64/26", "10.244.2.128/25"}}
	}
	if weft["node"] == l.vxlan {
		weft["encapsulation"] = "vxlan"
	}
	if l.etcd != nil {
		weft["control"] = l.etcd.MustControl(weft["node"].(string))
	}
}

func (l *lab) check(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

func (l *lab) node(n int) *testnet.Node { return l.cluster.Nodes()[n-1] }

func (l *lab) addPod(node int) *testnet.Pod {
	l.Helper()
	pod, err := l.node(node).AddPod(l.Context(), fmt.Sprintf("pod%d", len(l.pods)+1))
	l.check(err)
	l.pods = append(l.pods, pod)
	return pod
}

// addr is a pod's IPv4 address; pods are numbered from 1.
func (l *lab) addr(pod int) netip.Addr {
	addr, _ := l.pods[pod-1].Addr(false)
	return addr
}

// list is a node's list of nodes.
func (l *lab) list(node int, entries []testnet.NodeEntry) {
	l.Helper()
	l.check(l.node(node).SetNodes(entries))
}

func (l *lab) file(node int, path, text string) {
	l.Helper()
	l.check(os.WriteFile(filepath.Join(l.node(node).Dir(), path), []byte(text), 0o644))
}

// run runs a script on a node.
func (l *lab) run(at *testnet.Namespace, script string) {
	l.Helper()
	_, err := at.Exec(l.Context(), "sh", "-ec", script)
	l.check(err)
}

// send sends datagrams, some thousand a second, so that no buffer is full.
func (l *lab) send(from *testnet.Namespace, local netip.Addr, to netip.AddrPort, datagrams int) {
	l.Helper()
	var conn *net.UDPConn
	l.check(from.Do(func() (err error) {
		conn, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0)), net.UDPAddrFromAddrPort(to))
		return err
	}))
	defer conn.Close()
	payload := make([]byte, 100)
	payload[0] = 1 // to weft's port, it is like a sealed one of a session that there is not
	for i := range datagrams {
		_, _ = conn.Write(payload) // an ICMP error of the one before is none of this one
		if i%50 == 0 {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// inject writes IPv4 packets into a node's TUN device, past the kernel's own routing.
func (l *lab) inject(node int, packet []byte, times int) {
	l.Helper()
	l.check(l.node(node).Do(func() error {
		device, err := net.InterfaceByName(testnet.TUNName)
		if err != nil {
			return err
		}
		const ipv4 = unix.ETH_P_IP<<8&0xff00 | unix.ETH_P_IP>>8 // in network byte order
		socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, ipv4)
		if err != nil {
			return err
		}
		defer unix.Close(socket)
		for i := range times {
			if err := unix.Sendto(socket, packet, 0, &unix.SockaddrLinklayer{Protocol: ipv4, Ifindex: device.Index}); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return err
			}
			if i%50 == 0 {
				time.Sleep(5 * time.Millisecond)
			}
		}
		return nil
	}))
}

// transfer sends bytes from the first pod to the second over TCP.
func (l *lab) transfer(size int64) error {
	listener, err := l.pods[1].Listen(l.Context(), "tcp4", "0.0.0.0:7000")
	if err != nil {
		return err
	}
	defer listener.Close()
	received := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			_, err = io.Copy(io.Discard, conn)
			conn.Close()
		}
		received <- err
	}()
	conn, err := l.pods[0].Dial(l.Context(), "tcp", netip.AddrPortFrom(l.addr(2), 7000).String())
	if err != nil {
		return err
	}
	_, err = io.CopyN(conn, zeros{}, size)
	return errors.Join(err, conn.Close(), <-received)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// step does one thing, and logs how long it took.
func (l *lab) step(name string, do func()) {
	l.Helper()
	l.began = time.Now()
	do()
	l.Logf("%s: %v", name, time.Since(l.began).Round(100*time.Millisecond))
}

// awaitAlerts waits until alerts fire in this step, each for its node; node 0 stands for none.
func (l *lab) awaitAlerts(want map[string]int) {
	l.Helper()
	l.prometheus.await(l.T, "alerts", func(ctx context.Context) error {
		firing, err := l.prometheus.firing(ctx, l.began)
		if err != nil {
			return err
		}
		var missing []string
		for alert, node := range want {
			instance := ""
			if node > 0 {
				instance = l.node(node).Entry().Endpoint.Addr().String()
			}
			if !slices.Contains(firing[alert], instance) {
				missing = append(missing, fmt.Sprintf("%s of node %d", alert, node))
			}
		}
		if len(missing) > 0 {
			return fmt.Errorf("these have not fired: %s", strings.Join(missing, ", "))
		}
		return nil
	})
	for alert := range want {
		l.fired[alert] = true
	}
}
