package main_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/internal/status"
	"weft/internal/testnet"
)

// binDir holds weftd, weft-cni and weft as they are built for users.
var binDir string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "weft-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// They are built where they stay, so that only what has changed is linked again, and run
	// where every user may run them.
	const built = "../../bin/test/weftd/"
	build := exec.Command("go", "build", "-o", built, "weft/cmd/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the programs under test:", err)
		return 1
	}
	if err := os.CopyFS(dir, os.DirFS(built)); err != nil {
		fmt.Fprintln(os.Stderr, "copy the programs under test:", err)
		return 1
	}
	binDir = dir
	return m.Run()
}

// newCluster builds a cluster that is not started yet.
func newCluster(t *testing.T, o testnet.ClusterOptions) *testnet.Cluster {
	t.Helper()
	cluster, err := testnet.ForTest(t, testnet.Options{Prefix: "weftd", BinDir: binDir}).NewCluster(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return cluster
}

func startCluster(t *testing.T, o testnet.ClusterOptions) *testnet.Cluster {
	t.Helper()
	cluster := newCluster(t, o)
	if err := cluster.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return cluster
}

func withDriver(driver string) func(map[string]any) {
	return func(weft map[string]any) { weft["tun"].(map[string]any)["driver"] = driver }
}

func addPod(t *testing.T, node *testnet.Node, name string) *testnet.Pod {
	t.Helper()
	pod, err := node.AddPod(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

func addrOf(t *testing.T, pod *testnet.Pod, v6 bool) netip.Addr {
	t.Helper()
	addr, ok := pod.Addr(v6)
	if !ok {
		t.Fatalf("pod %s has no address of this family (IPv6: %v); it has %v", pod.PodName, v6, pod.Addrs)
	}
	return addr
}

func run(t *testing.T, n *testnet.Namespace, name string, args ...string) string {
	t.Helper()
	out, err := n.Exec(t.Context(), name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func eventually(t *testing.T, what string, cond func() error) {
	t.Helper()
	if err := testnet.Wait(t.Context(), what, func(context.Context) error { return cond() }); err != nil {
		t.Fatal(err)
	}
}

const port = "7000"

// serve accepts one connection in a namespace and hands it to handle.
func serve(t *testing.T, at *testnet.Namespace, handle func(net.Conn) error) <-chan error {
	t.Helper()
	listener, err := at.Listen(t.Context(), "tcp", "[::]:"+port)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		listener.Close() // before done, so that the port is free for another
		if err == nil {
			defer conn.Close()
			err = handle(conn)
		}
		done <- err
	}()
	t.Cleanup(func() { listener.Close() })
	return done
}

// transfer sends size bytes over TCP, and fails unless they arrive as they were sent.
func transfer(t *testing.T, from, to *testnet.Namespace, addr netip.Addr, size int64) {
	t.Helper()
	received := sha256.New()
	done := serve(t, to, func(conn net.Conn) error {
		n, err := io.Copy(received, conn)
		if err == nil && n != size {
			err = fmt.Errorf("%d of %d bytes arrived", n, size)
		}
		return err
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", net.JoinHostPort(addr.String(), port))
	if err != nil {
		t.Fatal(err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	sent := sha256.New()
	random := io.LimitReader(rand.NewChaCha8([32]byte{1}), size)
	if _, err := io.Copy(io.MultiWriter(conn, sent), random); err != nil {
		t.Fatalf("send to %s: %v", addr, err)
	}
	conn.Close()
	if err := <-done; err != nil {
		t.Fatalf("receive at %s: %v", addr, err)
	}
	if string(sent.Sum(nil)) != string(received.Sum(nil)) {
		t.Errorf("what %s received is not what was sent", addr)
	}
}

// expectNoChecksumErrors looks at the counters of the kernels along the way
// (proc_pid_net(5), snmp and snmp6).
func expectNoChecksumErrors(t *testing.T, namespaces ...*testnet.Namespace) {
	t.Helper()
	for _, n := range namespaces {
		counters := snmp(t, n)
		for name, value := range counters {
			if strings.Contains(name, "CsumErrors") && value != "0" {
				t.Errorf("%s counts %s checksum errors (%s)", n.Name(), value, name)
			}
		}
		if _, ok := counters["Tcp.InCsumErrors"]; !ok {
			t.Errorf("%s: no TCP checksum errors are counted at all; have the counters another name?", n.Name())
		}
	}
}

func snmp(t *testing.T, n *testnet.Namespace) map[string]string {
	t.Helper()
	counters := map[string]string{}
	lines := bufio.NewScanner(strings.NewReader(run(t, n, "cat", "/proc/net/snmp")))
	for lines.Scan() { // pairs of lines: names, then values
		names := strings.Fields(lines.Text())
		lines.Scan()
		for i, value := range strings.Fields(lines.Text())[1:] {
			counters[strings.TrimSuffix(names[0], ":")+"."+names[i+1]] = value
		}
	}
	lines = bufio.NewScanner(strings.NewReader(run(t, n, "cat", "/proc/net/snmp6")))
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) == 2 {
			counters[fields[0]] = fields[1]
		}
	}
	return counters
}

// report asks a node's weftd as an operator would.
func report(t *testing.T, n *testnet.Node) status.Report {
	t.Helper()
	var r status.Report
	out := run(t, n.Namespace, filepath.Join(binDir, "weft"), "--socket", filepath.Join(n.RunDir(), status.SocketName), "status", "-o", "json")
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("weft status -o json: %v\n%s", err, out)
	}
	return r
}

// metric returns the value of one of a node's metrics, as /metrics writes it.
func metric(t *testing.T, n *testnet.Node, name string) string {
	t.Helper()
	metrics, err := n.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	value, ok := metrics[name]
	if !ok {
		t.Fatalf("no metric %s", name)
	}
	return value
}
