package cniplugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/marks"
	"weft/internal/nftable"
	"weft/internal/nodefile"
	"weft/internal/rtnetlink"
	"weft/internal/testnet"
	"weft/ipam"
)

// binDir holds the plugin's binary, as it is shipped.
var binDir string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if binDir, err = os.MkdirTemp("", "weft-cni"); err != nil {
			panic(err)
		}
		defer os.RemoveAll(binDir)
		build := exec.Command("go", "build", "-o", filepath.Join(binDir, Type), "weft/cmd/weft-cni")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			panic(fmt.Sprintf("build the plugin: %v\n%s", err, out))
		}
		return m.Run()
	}())
}

// namespace is a network namespace that lives as long as the test holds it open.
type namespace struct {
	ns.NetNS
}

func newNamespace(t *testing.T) namespace {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root (sudo go test)")
	}
	n, err := ns.TempNetNS()
	if err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { n.Close() })
	return namespace{n}
}

// Path hides the one of NetNS, which names a thread that may have moved on.
func (n namespace) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.Fd()) }

// in runs f in the namespace.
func (n namespace) in(t *testing.T, f func() error) {
	t.Helper()
	if err := n.Do(func(ns.NetNS) error { return f() }); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what the kernel does a moment later.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	err := testnet.Wait(t.Context(), what, func(context.Context) error {
		if !holds() {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// addrs returns the addresses of the link called name, but the kernel's link-local ones.
// It may be called by any goroutine of the test.
func (n namespace) addrs(t *testing.T, name string) []netip.Addr {
	t.Helper()
	var found []netip.Addr
	err := n.Do(func(ns.NetNS) error {
		link, err := netlink.LinkByName(name)
		if _, notFound := errors.AsType[netlink.LinkNotFoundError](err); notFound {
			return nil
		}
		if err != nil {
			return err
		}
		addrs, err := rtnetlink.Dump(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) })
		for _, a := range addrs {
			if addr, ok := netip.AddrFromSlice(a.IP); ok && !a.IP.IsLinkLocalUnicast() {
				found = append(found, addr.Unmap())
			}
		}
		return err
	})
	if err != nil {
		t.Errorf("list the addresses of %s: %v", name, err)
	}
	return found
}

// node is a namespace with what weftd prepares on a node.
type node struct {
	namespace
	t                *testing.T
	runDir, stateDir string
	cidrs            []netip.Prefix
	own              []netip.Addr
	plugin           *Plugin
	out              bytes.Buffer
	cni              *libcni.CNIConfig
	pod              namespace // for tests that need just one
}

const testMTU = 1400

func newNode(t *testing.T, cidrs ...string) *node {
	t.Helper()
	n := &node{namespace: newNamespace(t), t: t, runDir: t.TempDir(), stateDir: t.TempDir()}
	for _, c := range cidrs {
		prefix := netip.MustParsePrefix(c)
		n.cidrs = append(n.cidrs, prefix)
		n.own = append(n.own, prefix.Addr().Next())
	}
	n.plugin = New(&n.out)
	n.cni = libcni.NewCNIConfigWithCacheDir([]string{binDir}, t.TempDir(), &nodeExec{node: n})
	n.set(t, map[string]string{"ipv4/conf/all/forwarding": "1", "ipv6/conf/all/forwarding": "1"})
	n.in(t, n.makeTUN)
	n.nft(`table inet weft { comment "made by the test"; }`)
	if err := nodefile.Write(n.runDir, nodefile.Node{
		Name: "node1", PodCIDRs: n.cidrs, Addresses: n.own, TUN: "weft0", MTU: testMTU, Guard: nftable.Identity{Comment: "made by the test"},
	}); err != nil {
		t.Fatal(err)
	}
	if err := nodefile.Forwards(n.runDir); err != nil {
		t.Fatal(err)
	}
	return n
}

// nft runs a script on the node.
func (n *node) nft(script string) {
	n.t.Helper()
	n.in(n.t, func() error {
		c := exec.Command("nft", script)
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, out)
		}
		return nil
	})
}

// describeNode changes what weftd says of the node.
func (n *node) describeNode(change func(*nodefile.Node)) {
	n.t.Helper()
	described, err := nodefile.Read(n.runDir)
	if err != nil {
		n.t.Fatal(err)
	}
	change(&described)
	if err := nodefile.Write(n.runDir, described); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) makeTUN() error {
	tun := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "weft0"}, Mode: netlink.TUNTAP_MODE_TUN}
	if err := netlink.LinkAdd(tun); err != nil {
		return fmt.Errorf("make a TUN device (is /dev/net/tun there?): %w", err)
	}
	for _, addr := range n.own {
		a := &netlink.Addr{IPNet: rtnetlink.HostNet(addr), Flags: unix.IFA_F_NODAD}
		if err := netlink.AddrAdd(tun, a); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(tun)
}

func (n *node) conf(cniVersion string) map[string]any {
	return map[string]any{
		"cniVersion": cniVersion, "name": "weft", "type": Type,
		"runDir": n.runDir, "stateDir": n.stateDir,
	}
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// list is the network as a runtime reads it from a conflist.
func (n *node) list(cniVersion string) *libcni.NetworkConfigList {
	n.t.Helper()
	list, err := libcni.ConfListFromBytes(encode(n.t, map[string]any{
		"cniVersion": cniVersion, "name": "weft", "plugins": []any{n.conf(cniVersion)},
	}))
	if err != nil {
		n.t.Fatal(err)
	}
	return list
}

// args is a call for the pod's eth0, without libcni between.
func (n *node) args(containerID, netns string) *skel.CmdArgs {
	n.t.Helper()
	return &skel.CmdArgs{ContainerID: containerID, Netns: netns, IfName: "eth0", StdinData: encode(n.t, n.conf("1.1.0"))}
}

// call runs one of the plugin's functions as a process on the node would.
func (n *node) call(f func(*skel.CmdArgs) error, args *skel.CmdArgs) error {
	n.out.Reset()
	return n.Do(func(ns.NetNS) error { return f(args) })
}

// leases returns those of all networks.
func (n *node) leases() (all []ipam.Lease) {
	n.t.Helper()
	stores, err := ipam.OpenAll(n.stateDir)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, store := range stores {
		leases, _, err := store.List()
		if err != nil {
			n.t.Fatal(err)
		}
		all = append(all, leases...)
	}
	return all
}

// podLinks returns the names of all host sides of pods' veths.
func (n *node) podLinks() []string {
	n.t.Helper()
	var names []string
	n.in(n.t, func() error {
		links, err := rtnetlink.Dump(netlink.LinkList)
		for _, l := range links {
			if l.Attrs().Group == marks.PodLinkGroup {
				names = append(names, l.Attrs().Name)
			}
		}
		return err
	})
	return names
}

func (n *node) requireNothingLeft() {
	n.t.Helper()
	if leases := n.leases(); len(leases) > 0 {
		n.t.Errorf("leases left: %v", leases)
	}
	if links := n.podLinks(); len(links) > 0 {
		n.t.Errorf("links left: %v", links)
	}
}

// nodeExec starts plugins in the node's namespace. A positive killAfter kills them.
type nodeExec struct {
	version.PluginDecoder
	node      *node
	killAfter func() time.Duration
}

func (e *nodeExec) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}

var errKilled = errors.New("the plugin was killed")

func (e *nodeExec) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, bytes.NewReader(stdin), &stdout, &stderr
	if err := e.node.Do(func(ns.NetNS) error { return cmd.Start() }); err != nil {
		return nil, err
	}
	if e.killAfter != nil {
		if delay := e.killAfter(); delay > 0 {
			timer := time.AfterFunc(delay, func() { _ = cmd.Process.Kill() })
			defer timer.Stop()
		}
	}
	err := cmd.Wait()
	if err == nil {
		return stdout.Bytes(), nil
	}
	if status, ok := cmd.ProcessState.Sys().(interface{ Signaled() bool }); ok && status.Signaled() {
		return nil, errKilled
	}
	failure := &types.Error{}
	if jsonErr := json.Unmarshal(stdout.Bytes(), failure); jsonErr != nil {
		return nil, fmt.Errorf("%w: stdout %q, stderr %q", err, stdout.String(), stderr.String())
	}
	return nil, failure
}

func runtimeConf(containerID string, pod namespace) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: containerID, NetNS: pod.Path(), IfName: "eth0"}
}

// requireCode fails unless err is a CNI error with code.
func requireCode(t *testing.T, err error, code uint) {
	t.Helper()
	var cniErr *types.Error
	if !errors.As(err, &cniErr) || cniErr.Code != code {
		t.Fatalf("got %#v (%v), want code %d", err, err, code)
	}
}

// dial opens a TCP connection from one namespace to an address in another, and returns
// the address from which it arrived.
func dial(t *testing.T, from, to namespace, addr netip.Addr) netip.Addr {
	t.Helper()
	seen, _ := connect(t, from, to, addr)
	return seen
}

// connect is dial, and also returns how many packets had to be sent again.
func connect(t *testing.T, from, to namespace, addr netip.Addr) (seen netip.Addr, again uint32) {
	t.Helper()
	var listener net.Listener
	to.in(t, func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
		return err
	})
	defer listener.Close()
	from.in(t, func() error {
		dialer := net.Dialer{Timeout: time.Minute}
		conn, err := dialer.Dial("tcp", listener.Addr().String())
		if err != nil {
			return err
		}
		defer conn.Close()
		raw, err := conn.(*net.TCPConn).SyscallConn()
		if err != nil {
			return err
		}
		var infoErr error
		err = raw.Control(func(fd uintptr) {
			var info *unix.TCPInfo
			if info, infoErr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); infoErr == nil {
				again = info.Total_retrans
			}
		})
		return errors.Join(err, infoErr)
	})
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return netip.MustParseAddrPort(conn.RemoteAddr().String()).Addr().Unmap(), again
}

func requireSameAddrs(t *testing.T, got, want []netip.Addr) {
	t.Helper()
	got, want = slices.Clone(got), slices.Clone(want)
	slices.SortFunc(got, netip.Addr.Compare)
	slices.SortFunc(want, netip.Addr.Compare)
	if !slices.Equal(got, want) {
		t.Errorf("got addresses %v, want %v", got, want)
	}
}
