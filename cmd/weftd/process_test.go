package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/renameio/v2"

	"weft/internal/testnet"
)

// outcome is how a program ended that was run to its end.
type outcome struct {
	status         int
	stdout, stderr string
}

// weftd prepares the daemon with a node's configuration, for tests that start it
// in another way than the fixture does. Words before the program wrap it.
func weftd(t *testing.T, node *testnet.Node, wrap []string, args ...string) *exec.Cmd {
	t.Helper()
	words := slices.Concat(wrap, []string{filepath.Join(binDir, "weftd"), "--config", configFile(node)}, args)
	return node.Command(t.Context(), words[0], words[1:]...)
}

// weft runs the operator's command on a node.
func weft(t *testing.T, node *testnet.Node, args ...string) outcome {
	t.Helper()
	return finish(t, node.Command(t.Context(), filepath.Join(binDir, "weft"), append([]string{"--socket", node.Socket()}, args...)...))
}

// begin starts a program that must end after the call of wait.
func begin(t *testing.T, cmd *exec.Cmd) (wait func() outcome) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() outcome {
		t.Helper()
		late := time.AfterFunc(testnet.WaitLimit, func() { _ = cmd.Cancel() })
		err := cmd.Wait()
		if !late.Stop() {
			t.Fatalf("%s does not end\n%s", cmd, stderr.String())
		}
		if err != nil && !errors.As(err, new(*exec.ExitError)) {
			t.Fatal(err)
		}
		return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
	}
}

// finish runs a program that must end by itself within a few seconds.
func finish(t *testing.T, cmd *exec.Cmd) outcome {
	t.Helper()
	return begin(t, cmd)()
}

func configFile(n *testnet.Node) string { return filepath.Join(n.Dir(), "weft.yaml") }
func nodesFile(n *testnet.Node) string  { return filepath.Join(n.Dir(), "nodes.yaml") }
func conflist(n *testnet.Node) string   { return filepath.Join(n.Dir(), "cni", "10-weft.conflist") }

// ours is what weftd owns in a node's kernel, as ip(8) and nft(8) print it; empty
// if there is nothing. Of a device that never lost its carrier the kernel does not know the state.
func ours(t *testing.T, at *testnet.Namespace) string {
	t.Helper()
	return run(t, at, "sh", "-c", `
		ip -br addr show weft0 2>/dev/null | sed 's/UNKNOWN  */UP /; s/UP  */UP /'
		for family in -4 -6; do
			ip $family route show table all proto 93
			ip $family route show table 9338 2>/dev/null
			ip $family rule show | grep 9338
		done
		`+listGuard+`
		nft --stateless list table bridge weft 2>/dev/null
		true`)
}

// withoutRouted leaves out of a listing the elements of the sets that pods' packets fill.
const withoutRouted = `sed '/set routed[46] {/,/^\t}/{/elements = {/{:a;/}/!{N;ba};d}}'`

const listGuard = `nft --stateless list table inet weft 2>/dev/null | ` + withoutRouted

// network is the whole of a node's network, as far as a weftd that refuses to run,
// or is stopped, must leave it as it was. Soon after a crash the kernel marks routes as linkdown.
func network(t *testing.T, at *testnet.Namespace) string {
	t.Helper()
	return run(t, at, "sh", "-c", `
		ip -o link | cut -d: -f2
		ip -4 route show table all | sed 's/ linkdown//'
		ip -6 route show | grep -v ^fe80 | sed 's/ linkdown//'
		ip -4 rule
		ip -6 rule
		nft --stateless list ruleset | `+withoutRouted)
}

// torn returns network after `weft teardown`, which must find nothing in its way.
func torn(t *testing.T, node *testnet.Node) string {
	t.Helper()
	if got := teardown(t, node); got.status != 0 {
		t.Errorf("weft teardown: exit status %d: %s", got.status, got.stderr)
	}
	return network(t, node.Namespace)
}

func teardown(t *testing.T, node *testnet.Node, args ...string) outcome {
	t.Helper()
	return weft(t, node, append([]string{"teardown", "--config", configFile(node)}, args...)...)
}

// forwarding returns whether a node routes packets; weftd turns it on and not off again.
func forwarding(t *testing.T, at *testnet.Namespace) string {
	t.Helper()
	return run(t, at, "sysctl", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
}

func expectSame(t *testing.T, what, before, after string) {
	t.Helper()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(after, "\n")); diff != "" {
		t.Errorf("%s changed (-before +after):\n%s", what, diff)
	}
}

// eventuallySame waits until something is again what it was before.
func eventuallySame(t *testing.T, what, before string, now func() string) {
	t.Helper()
	eventually(t, what+" to be as before", func() error {
		if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(now(), "\n")); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
}

// eventuallyRoutes waits until pods have routes to so many peers' nodes: weftd reports a list of
// nodes before the host has its routes.
func eventuallyRoutes(t *testing.T, node *testnet.Node, peers int) {
	t.Helper()
	eventually(t, "the routes to all peers", func() error {
		if routes := run(t, node.Namespace, "ip", "-4", "route", "show", "table", "9338"); strings.Count(routes, "dev weft0") != peers {
			return errors.New(routes)
		}
		return nil
	})
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// write replaces a file by rename: no weftd that reads it just now sees half of it.
func write(t *testing.T, path, content string) {
	t.Helper()
	if err := renameio.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func logs(t *testing.T, node *testnet.Node) string {
	t.Helper()
	log, err := node.Logs()
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// files lists the files under dir with their content.
func files(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			fmt.Fprintf(&b, "%s: %s\n", path, read(t, path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
