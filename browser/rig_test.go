package browser

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"

	"github.com/chromedp/chromedp"

	"weft/internal/testnet"
)

// What all tests share.
var (
	binDir   string          // weft's programs
	chromium context.Context // the browser; each test has tabs of its own
)

func TestMain(m *testing.M) {
	status, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

func buildAndRun(m *testing.M) (status int, err error) {
	if binDir, err = os.MkdirTemp("", "weft-browser-"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(binDir)
	build := exec.Command("go", "build", "-C", "..", "-o", binDir, "./cmd/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build the programs under test: %w\n%s", err, out)
	}
	// Root's Chromium has no sandbox. It loads nothing but weft's page.
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WSURLReadTimeout(testnet.WaitLimit))
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	defer cancel()
	var stop context.CancelFunc
	chromium, stop = chromedp.NewContext(allocator)
	defer stop()
	if _, err := chromedp.Run(chromium, chromedp.Steps()); err != nil {
		return 1, fmt.Errorf("start Chromium (make deps installs it): %w", err)
	}
	return m.Run(), nil
}

// address makes a node's page reachable, and returns where.
func address(t *testing.T, node *testnet.Node) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		_ = testnet.Forward(context.WithoutCancel(t.Context()), listener, func(ctx context.Context) (net.Conn, error) {
			return node.Dial(ctx, "tcp", testnet.MetricsAddress)
		})
	}()
	return "http://" + listener.Addr().String() + "/"
}

func startCluster(t *testing.T, o testnet.ClusterOptions) *testnet.Cluster {
	t.Helper()
	cluster, err := testnet.ForTest(t, testnet.Options{Prefix: "weft-browser", BinDir: binDir}).NewCluster(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return cluster
}

func addPod(t *testing.T, node *testnet.Node, name string) *testnet.Pod {
	t.Helper()
	pod, err := node.AddPod(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

func run(t *testing.T, n *testnet.Namespace, name string, args ...string) {
	t.Helper()
	if _, err := n.Exec(t.Context(), name, args...); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, cond func() error) {
	t.Helper()
	if err := testnet.Wait(t.Context(), what, func(context.Context) error { return cond() }); err != nil {
		t.Fatal(err)
	}
}
