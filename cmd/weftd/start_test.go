package main_test

import (
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
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"weft/internal/nodefile"
	"weft/internal/testnet"
)

// TestSystemdLearnsOfEachStep: READY comes with the guard, because what weftd waits for may run
// in the container runtime, which systemd starts afterwards.
func TestSystemdLearnsOfEachStep(t *testing.T) {
	t.Parallel()
	node := newCluster(t, testnet.ClusterOptions{Nodes: 2}).Nodes()[0]
	cmd := weftd(t, node, nil)
	receive := notified(t, node, cmd)
	wait := begin(t, cmd)

	if got := receive(); got != "READY=1\nSTATUS=protected, not forwarding yet" {
		t.Fatalf("the first word to systemd is %q", got)
	}
	run(t, node.Namespace, "nft", "list", "table", "inet", "weft")
	if got := receive(); got != "STATUS=forwarding" {
		t.Fatalf("the second word to systemd is %q", got)
	}
	if !exists(conflist(node)) {
		t.Error("weftd says that it forwards before the conflist is there")
	}
	if _, err := node.Get(t.Context(), "/readyz"); err != nil {
		t.Errorf("weftd says to systemd that it forwards, and to others that it is not ready: %v", err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := receive(); got != "STOPPING=1" {
		t.Errorf("the last word to systemd is %q", got)
	}
	if got := wait(); got.status != 0 {
		t.Errorf("exit status %d: %s", got.status, got.stderr)
	}
}

// notified returns what gives one message after the other that a weftd has for systemd.
func notified(t *testing.T, node *testnet.Node, cmd *exec.Cmd) (receive func() string) {
	t.Helper()
	path := filepath.Join(node.Dir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+path)
	return func() string {
		t.Helper()
		message := make([]byte, 1000)
		_ = socket.SetReadDeadline(time.Now().Add(testnet.WaitLimit))
		n, err := socket.Read(message)
		if err != nil {
			t.Fatal(err)
		}
		return string(message[:n])
	}
}

// watched is what happened to a file under its final name.
type watched struct {
	watcher *fsnotify.Watcher
	done    chan []string
}

// watch records what happens to the conflist and to node.json. When one appears, it
// calls appeared.
func watch(t *testing.T, node *testnet.Node, appeared func(name string)) *watched {
	t.Helper()
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { watcher.Close() })
	w := &watched{watcher: watcher, done: make(chan []string, 1)}
	final := []string{conflist(node), filepath.Join(node.RunDir(), nodefile.Name)}
	for _, path := range final {
		if err := watcher.Add(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		var seen []string
		for event := range watcher.Events {
			if slices.Contains(final, event.Name) {
				if event.Has(fsnotify.Create) {
					appeared(event.Name)
				}
				seen = append(seen, fmt.Sprintf("%s %s", filepath.Base(event.Name), event.Op))
			}
		}
		w.done <- seen
	}()
	return w
}

// stop returns what happened until now.
func (w *watched) stop() []string {
	w.watcher.Close()
	return <-w.done
}

// The runtime never sees half a file, nor one before pods can be wired.
func TestConflistAppearsWholeWhenReady(t *testing.T) {
	t.Parallel()
	cluster := newCluster(t, testnet.ClusterOptions{Nodes: 2})
	node := cluster.Nodes()[0]
	problems := make(chan error, 100)
	w := watch(t, node, func(path string) {
		content, err := os.ReadFile(path)
		if err == nil && !json.Valid(content) {
			err = fmt.Errorf("%s appears half: %s", path, content)
		}
		problems <- err
		if path != conflist(node) {
			return
		}
		_, err = nodefile.Read(node.RunDir())
		problems <- err
		for _, command := range []string{"nft list table inet weft", "ip link show weft0 up", "ip route show 10.244.2.0/24 dev weft0"} {
			words := strings.Fields(command)
			if out, err := node.Exec(t.Context(), words[0], words[1:]...); err != nil || out == "" {
				problems <- errors.Join(fmt.Errorf("the conflist is there, but `%s` shows nothing", command), err)
			}
		}
	})
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	want := []string{"node.json CREATE", "10-weft.conflist CREATE"} // what is written in place is a WRITE too
	if diff := cmp.Diff(want, w.stop(), cmpopts.SortSlices(strings.Compare)); diff != "" {
		t.Errorf("what happened to the two files (-want +got):\n%s", diff)
	}
	close(problems)
	for err := range problems {
		if err != nil {
			t.Error(err)
		}
	}

	described, err := nodefile.Read(node.RunDir())
	if err != nil {
		t.Fatal(err)
	}
	wantNode := nodefile.Node{
		Name: "node1", PodCIDRs: prefixes("10.244.1.0/24", "fd00:244:1::/64"), TUN: "weft0", MTU: 1450,
		Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.1"), netip.MustParseAddr("fd00:244:1::1")},

		CooldownSeconds: 120,

		GSOMaxSize: 61000, GSOMaxSegs: 64,
	}
	if wantNode.Guard = described.Guard; described.Guard.Comment == "" || described.Guard.Rules == 0 {
		t.Errorf("node.json names no guard: %+v", described.Guard)
	}
	if diff := cmp.Diff(wantNode, described, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("node.json (-want +got):\n%s", diff)
	}
	for _, path := range []string{conflist(node), filepath.Join(node.RunDir(), nodefile.Name)} {
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
			t.Errorf("%s has mode %v, %v; the runtime and its plugins must be able to read it", path, info.Mode(), err)
		}
	}
}

func TestTheConflistIsWhatTheCNISpecificationWants(t *testing.T) {
	t.Parallel()
	node := startCluster(t, testnet.ClusterOptions{Nodes: 1}).Nodes()[0]
	list, err := libcni.LoadNetworkConf(filepath.Dir(conflist(node)), "weft")
	if err != nil {
		t.Fatal(err)
	}
	if list.Name != "weft" || list.CNIVersion != "1.1.0" || list.DisableCheck || list.DisableGC || len(list.Plugins) != 1 {
		t.Errorf("libcni reads name %s, version %s, disableCheck %v, disableGC %v, %d plugins", list.Name, list.CNIVersion, list.DisableCheck, list.DisableGC, len(list.Plugins))
	}
	runtime := libcni.NewCNIConfigWithCacheDir([]string{binDir}, t.TempDir(), nil)
	if _, err := runtime.ValidateNetworkList(t.Context(), list); err != nil {
		t.Errorf("libcni and the plugin do not agree: %v", err)
	}
	if err := node.Do(func() error { return runtime.GetStatusNetworkList(t.Context(), list) }); err != nil {
		t.Errorf("STATUS by the conflist, with weftd ready: %v", err)
	}

	// Runtimes of CNI 1.0.0 and before know none of the keys that came later.
	var keys map[string]any
	if err := json.Unmarshal(list.Bytes, &keys); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]any{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}, keys["cniVersions"]); diff != "" {
		t.Errorf("cniVersions (-want +got):\n%s", diff)
	}
	if keys["cniVersion"] != "1.0.0" {
		t.Errorf("cniVersion %v: runtimes that don't read cniVersions need 1.0.0", keys["cniVersion"])
	}
	plugin := list.Plugins[0]
	var conf map[string]any
	if err := json.Unmarshal(plugin.Bytes, &conf); err != nil {
		t.Fatal(err)
	}
	delete(conf, "name")
	delete(conf, "cniVersion")
	want := map[string]any{"type": "weft-cni", "runDir": node.RunDir(), "stateDir": filepath.Join(node.Dir(), "state"),
		"capabilities": map[string]any{"ips": true, "mac": true}, "chained": []any{}}
	if diff := cmp.Diff(want, conf); diff != "" {
		t.Errorf("the plugin's configuration (-want +got):\n%s", diff)
	}
}

func TestLaterPluginJoinsTheConflist(t *testing.T) {
	t.Parallel()
	plugins := t.TempDir()
	node := startCluster(t, testnet.ClusterOptions{Nodes: 1, Configure: func(weft map[string]any) {
		cni := weft["cni"].(map[string]any)
		cni["binDir"], cni["chain"] = plugins, []string{"portmap"}
	}}).Nodes()[0]
	if strings.Contains(read(t, conflist(node)), "portmap") {
		t.Error("a plugin that is not there is in the conflist")
	}
	if log := logs(t, node); !strings.Contains(log, "level=WARN") || !strings.Contains(log, "hostPorts") {
		t.Errorf("no word of what pods lack:\n%s", log)
	}
	script := "#!/bin/sh\necho '{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"1.0.0\"]}'\n"
	if err := os.WriteFile(filepath.Join(plugins, "portmap"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	err := testnet.Wait(t.Context(), "the plugin in the conflist", func(context.Context) error {
		if list := read(t, conflist(node)); !strings.Contains(list, `"type": "portmap"`) {
			return errors.New(list)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
