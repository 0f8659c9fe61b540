package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/marks"
	"weft/internal/testnet"
	"weft/ipam"
)

// systemPlugins is where the distribution has its CNI plugins.
const systemPlugins = "/usr/lib/cni"

// newestPlugins has the plugins of the newest release, which speak CNI 1.1.0.
func newestPlugins() string { return filepath.Join(binDir, "newest") }

// What all tests share.
var (
	binDir  string // weft's programs, cnitool, and links to the chained plugins
	cluster *testnet.Cluster
	node1   *machine
	node2   *machine

	// alone is a node whose conflist has weft-cni only.
	alone *machine
)

func TestMain(m *testing.M) {
	if os.Getenv("CNI_COMMAND") != "" {
		runMesh()
		return
	}
	status, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

func buildAndRun(m *testing.M) (status int, err error) {
	ctx := context.Background()
	if binDir, err = os.MkdirTemp("", "weft-e2e-"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(binDir)
	if err := fillBinDir(); err != nil {
		return 1, err
	}
	net, err := testnet.New(ctx, testnet.Options{Prefix: "weft-cri", BinDir: binDir})
	if err != nil {
		return 1, err
	}
	err = startAll(ctx, net)
	if err == nil {
		status = m.Run()
	}
	if err != nil || status != 0 {
		printLogs()
	}
	for _, machine := range []*machine{node1, node2, alone} {
		if machine != nil {
			_ = machine.conn.Close()
		}
	}
	err = errors.Join(err, net.Close())
	if left, leftErr := net.Leftovers(ctx); leftErr != nil || len(left) > 0 {
		err = errors.Join(err, leftErr, fmt.Errorf("left behind: %v", left))
	}
	return status, err
}

func fillBinDir() error {
	newest := func(plugin string) string { return "github.com/containernetworking/plugins/plugins/meta/" + plugin }
	if err := os.Mkdir(newestPlugins(), 0o755); err != nil {
		return err
	}
	for _, build := range []*exec.Cmd{
		exec.Command("go", "build", "-C", "..", "-o", binDir, "./cmd/..."),
		exec.Command("go", "build", "-o", binDir, "github.com/containernetworking/cni/cnitool"),
		exec.Command("go", "build", "-C", "multus", "-o", binDir, "tool"),
		exec.Command("go", "build", "-o", newestPlugins(), newest("portmap"), newest("bandwidth"), newest("tuning"), newest("firewall")),
	} {
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build the programs under test: %w\n%s", err, out)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Symlink(self, filepath.Join(binDir, mesh)); err != nil {
		return err
	}
	// containerd itself calls loopback.
	for _, plugin := range []string{"portmap", "bandwidth", "tuning", "loopback"} {
		path := filepath.Join(systemPlugins, plugin)
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("find the CNI plugins (make deps installs them): %w", err)
		}
		if err := os.Symlink(path, filepath.Join(binDir, plugin)); err != nil {
			return err
		}
	}
	return nil
}

// startAll starts weftd and containerd on all nodes.
func startAll(ctx context.Context, net *testnet.Net) (err error) {
	cluster, err = net.NewCluster(ctx, testnet.ClusterOptions{Nodes: 3, Sealed: true, Configure: func(weft map[string]any) {
		if weft["node"] != "node3" {
			delete(weft["cni"].(map[string]any), "chain") // what weftd does by itself
		}
	}})
	if err != nil {
		return err
	}
	archive := filepath.Join(net.Dir(), "image.tar")
	if err := testnet.WriteImage(archive); err != nil {
		return fmt.Errorf("make the image: %w", err)
	}
	for i, to := range []**machine{&node1, &node2, &alone} {
		if *to, err = newMachine(ctx, cluster.Nodes()[i]); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return cluster.Start(ctx) })
	for _, m := range []*machine{node1, node2, alone} {
		group.Go(func() error {
			if err := m.startContainerd(ctx); err != nil {
				return err
			}
			if err := m.importImage(ctx, archive); err != nil {
				return err
			}
			return testnet.Wait(ctx, "containerd to see the network of "+m.Name(), m.networkReady)
		})
	}
	return group.Wait()
}

// printLogs prints the ends of all daemons' logs, of containerd's only what is no mere
// information.
func printLogs() {
	for _, m := range []*machine{node1, node2, alone} {
		if m == nil {
			continue
		}
		fmt.Fprintln(os.Stderr, m.LogTail(15))
		log, _ := os.ReadFile(m.Containerd.LogFile())
		lines := strings.Split(strings.TrimSpace(string(log)), "\n")
		lines = slices.DeleteFunc(lines, func(line string) bool { return strings.Contains(line, "level=info") })
		fmt.Fprintf(os.Stderr, "--- what containerd on %s complained of\n%s\n---\n", m.Name(), strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
}

// begin is how each test begins. At its end all pods are removed, and what is left of
// them then fails it.
func begin(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		// The test's own context has ended by then.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
		defer cancel()
		for _, m := range []*machine{node1, node2, alone} {
			if err := m.removePods(ctx); err != nil {
				t.Error(err)
			}
			m.expectNothingLeft(ctx, t)
		}
	})
}

// expectNothingLeft fails for each trace of a pod.
func (m *machine) expectNothingLeft(ctx context.Context, t *testing.T) {
	t.Helper()
	for what, found := range m.traces(ctx, t) {
		if len(found) > 0 {
			t.Errorf("%s: left are %d %s: %s", m.Name(), len(found), what, found)
		}
	}
}

// traces looks for what pods have, in all places where it is kept.
func (m *machine) traces(ctx context.Context, t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{
		"network namespaces":         fileNames(m.Path(netnsDir)),
		"results in libcni's cache":  fileNames(m.Path(filepath.Join(cacheDir, "results"))),
		"cgroups of all controllers": m.Cgroups(),
		"leases":                     nil,
	}
	leases, err := m.leases()
	if err != nil {
		t.Error(err)
	}
	for _, lease := range leases {
		found["leases"] = append(found["leases"], lease.String())
	}
	const portmapRules = "-save -t nat | grep -e CNI-DN- -e '^-A CNI-HOSTPORT-DNAT' || true"
	for what, command := range map[string]string{
		"veths":                  fmt.Sprintf("ip -o link show group %d", marks.PodLinkGroup),
		"devices of bandwidth":   "ip -o link show type ifb",
		"routes of IPv4":         fmt.Sprintf("ip -4 route show table all proto %d", marks.PodRouteProtocol),
		"routes of IPv6":         fmt.Sprintf("ip -6 route show table all proto %d", marks.PodRouteProtocol),
		"rules of portmap, IPv4": "iptables" + portmapRules,
		"rules of portmap, IPv6": "ip6tables" + portmapRules,
		"processes":              "ps -eo args | grep -e '[c]ontainerd-shim' -e '[s]leep 86400' || true",
	} {
		out, err := m.run(ctx, "sh", "-c", command)
		if err != nil {
			t.Error(err)
		}
		found[what] = slices.Collect(strings.Lines(out))
	}
	return found
}

func (m *machine) leases() ([]ipam.Lease, error) {
	store, err := ipam.Open(filepath.Join(m.Dir(), "state"), "weft")
	if err != nil {
		return nil, err
	}
	leases, _, err := store.List()
	return leases, err
}

// fileNames lists what is in a folder, which may be absent.
func fileNames(dir string) (names []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func eventually(t *testing.T, what string, cond func(context.Context) error) {
	t.Helper()
	if err := testnet.Wait(t.Context(), what, cond); err != nil {
		t.Fatal(err)
	}
}

// expectReached pings addresses from another node, and wants an answer from each. There
// may be no answer to the first: it is sealed with keys that a weftd which was killed by
// the test before does not have any more.
func expectReached(t *testing.T, from *machine, what string, addrs []netip.Addr) {
	t.Helper()
	var group errgroup.Group
	for _, addr := range addrs {
		group.Go(func() error {
			_, err := from.Exec(t.Context(), "ping", "-q", "-c3", "-i0.2", "-W5", addr.String())
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}
