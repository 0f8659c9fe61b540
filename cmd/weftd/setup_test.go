package main_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"weft/internal/manual"
	"weft/internal/testnet"
)

const (
	setupPage   = "docs/operations/install.md"
	listSection = "with-a-list-of-nodes-in-a-file"
	etcdSection = "with-etcd"

	// quickStart and clusterStart are the README's. A real Kubernetes follows the second one.
	quickStart   = "quick-start-without-kubernetes"
	clusterStart = "quick-start-in-kubernetes"
)

// fresh are hosts on which weft is installed and never ran, by the names of their nodes.
type fresh struct {
	*testnet.Cluster
	network *testnet.Net
	nodes   map[string]*testnet.Node
}

func newFresh(t *testing.T, nodes int) *fresh {
	t.Helper()
	network := testnet.ForTest(t, testnet.Options{Prefix: "weftd", BinDir: binDir})
	cluster, err := network.NewCluster(t.Context(), testnet.ClusterOptions{Nodes: nodes, Sealed: true})
	if err != nil {
		t.Fatal(err)
	}
	f := &fresh{cluster, network, map[string]*testnet.Node{}}
	for _, n := range f.Nodes() {
		f.nodes[n.Entry().Name] = n
		for _, path := range []string{configFile(n), nodesFile(n), n.KeyFile()} {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	return f
}

// start runs weftd as its unit does. The folders that the plugin uses, which runs elsewhere, have the
// names that they have there.
func (f *fresh) start(t *testing.T, n *testnet.Node) {
	t.Helper()
	weftd := asInstalled(t, stage{at: n.Namespace, node: n}, fmt.Sprintf(
		"exec weftd --config /etc/weft/weft.yaml --run-dir=%s --state-dir=%s --cni-conf-dir=%s --cni-bin-dir=%s --cni-chain=",
		n.RunDir(), filepath.Join(n.Dir(), "state"), n.ConfDir(), binDir))
	log, err := os.Create(n.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	weftd.Stdout, weftd.Stderr = log, log
	if err := weftd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after its context
		_ = weftd.Wait()
		log.Close()
		if t.Failed() {
			t.Logf("%s:\n%s", n.Name(), read(t, n.LogFile()))
		}
	})
	eventually(t, n.Name()+" to be ready", func() error {
		if !exists(n.Socket()) {
			return errors.New(logs(t, n))
		}
		if r := report(t, n); !r.Ready {
			return errors.New(r.NotReady)
		}
		return nil
	})
}

// follow runs the blocks of a section on the hosts that they name, as they stand there. In between,
// commands changes each.
func (f *fresh) follow(t *testing.T, page, section string, run func(on *testnet.Node, c manual.Commands, command string)) {
	t.Helper()
	for _, c := range manual.CommandsOf(t, page) {
		if c.Section != section {
			continue
		}
		place, command, ok := strings.Cut(c.Text, "\n")
		on := f.nodes[strings.TrimPrefix(place, "# on ")]
		if !ok || on == nil {
			t.Fatalf("%s:%d: no host is named in %q", c.Page, c.Line, place)
		}
		command, starts := strings.CutSuffix(command, "systemctl enable --now weftd\n")
		run(on, c, command)
		if starts {
			f.start(t, on)
		}
	}
}

// must runs a command that must succeed, and returns what it printed.
func (f *fresh) must(t *testing.T, on *testnet.Node, command string) string {
	t.Helper()
	ended := finish(t, asInstalled(t, stage{at: on.Namespace, node: on}, command))
	if ended.status != 0 {
		t.Fatalf("on %s: %s: exit status %d\n%s%s", on.Name(), command, ended.status, ended.stdout, ended.stderr)
	}
	return ended.stdout
}

var joinCommand = regexp.MustCompile(`weft join (weft1\.[A-Za-z0-9_-]+)`)

// invite runs a command that waits for a node. It returns the token, and a function that returns all
// that the command has printed at its end.
func (f *fresh) invite(t *testing.T, on *testnet.Node, command string) (token string, end func() string) {
	t.Helper()
	cmd := asInstalled(t, stage{at: on.Namespace, node: on}, command)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints strings.Builder
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines, printed := bufio.NewReader(out), ""
	for !strings.Contains(printed, "\nwaiting ") {
		line, err := lines.ReadString('\n')
		if printed += line; err != nil {
			t.Fatalf("on %s: %s: %v\n%s%s", on.Name(), command, err, printed, complaints.String())
		}
	}
	return joinCommand.FindStringSubmatch(printed)[1], func() string {
		t.Helper()
		rest, err := io.ReadAll(lines)
		if err := errors.Join(err, cmd.Wait()); err != nil {
			t.Fatalf("on %s: %s: %v\n%s%s", on.Name(), command, err, rest, complaints.String())
		}
		return printed + string(rest)
	}
}

// expectNetwork expects that pods on all hosts reach each other, and prints how long all took since the
// first command.
func (f *fresh) expectNetwork(t *testing.T, begun time.Time) {
	t.Helper()
	var pods []*testnet.Pod
	for _, n := range f.Nodes() {
		pods = append(pods, addPod(t, n, "pod-of-"+n.Entry().Name))
	}
	expectPingsOf(t, false, pods[:2]...)
	t.Logf("%d ms from zero to the first pings between two nodes' pods", time.Since(begun).Milliseconds())
	expectPingsOf(t, false, pods...)
}

// followList follows a section in which a second node joins by a token.
func (f *fresh) followList(t *testing.T, page, section string) {
	t.Helper()
	var token string
	var end func() string
	f.follow(t, page, section, func(on *testnet.Node, c manual.Commands, command string) {
		switch {
		case strings.HasPrefix(command, "weft invite"):
			token, end = f.invite(t, on, command)
		case strings.Contains(command, "weft1.TOKEN"):
			f.must(t, on, strings.ReplaceAll(command, "weft1.TOKEN", token))
			expectShown(t, manual.Commands{Page: c.Page, Line: c.Line, Output: "node node2 at 192.168.77.2:9338\nchanged /etc/weft/nodes.yaml\n"}, end())
		default:
			f.must(t, on, command)
		}
	})
	if token == "" {
		t.Fatalf("%s#%s invites no node", page, section)
	}
}

// TestQuickStart follows the README.
func TestQuickStart(t *testing.T) {
	t.Parallel()
	f := newFresh(t, 2)
	begun := time.Now()
	f.followList(t, "README.md", quickStart)
	f.expectNetwork(t, begun)
}

// TestThreeCommandsWithAList follows the manual, on two hosts that weft has never seen. Then a third one
// joins as the second did.
func TestThreeCommandsWithAList(t *testing.T) {
	t.Parallel()
	f := newFresh(t, 3)
	node1, node2, node3 := f.nodes["node1"], f.nodes["node2"], f.nodes["node3"]
	begun := time.Now()
	f.followList(t, setupPage, listSection)
	token, end := f.invite(t, node1, "weft invite")
	f.must(t, node3, "echo "+token+" | weft join -")
	f.start(t, node3)
	on, command, ok := strings.Cut(end(), "\nRun on node2:  ")
	if !ok {
		t.Fatalf("no command for node2 in\n%s", on)
	}
	f.must(t, node2, command)
	f.expectNetwork(t, begun)
	for _, n := range []*testnet.Node{node2, node3} {
		expectSame(t, "the list of "+n.Name(), read(t, nodesFile(node1)), read(t, nodesFile(n)))
	}
}

// TestThreeCommandsWithEtcd follows the manual with an etcd that knows nodes by their certificates.
func TestThreeCommandsWithEtcd(t *testing.T) {
	t.Parallel()
	f := newFresh(t, 2)
	etcd, err := f.network.AddEtcd(t.Context(), f.Segment, testnet.EtcdOptions{Members: 1, TLS: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range f.nodes {
		cert, key, err := etcd.ClientCert(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(n.Dir(), "etcd"), 0o755); err != nil {
			t.Fatal(err)
		}
		for from, to := range map[string]string{etcd.CAFile(): "ca.pem", cert: name + ".pem", key: name + "-key.pem"} {
			if err := os.WriteFile(filepath.Join(n.Dir(), "etcd", to), []byte(read(t, from)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	begun := time.Now()
	f.follow(t, setupPage, etcdSection, func(on *testnet.Node, _ manual.Commands, command string) { f.must(t, on, command) })
	f.expectNetwork(t, begun)
	if list := f.must(t, f.nodes["node2"], "weft node list"); strings.Count(list, "\n") != 3 || strings.Contains(list, "REJECTED") {
		t.Errorf("weft node list:\n%s", list)
	}

	// What would end in two nodes of one name, or in a second cluster.
	flags := fmt.Sprintf(" --control-etcd-endpoints=%s --control-etcd-ca-file=/etc/weft/etcd/ca.pem --control-etcd-cert-file=/etc/weft/etcd/node2.pem --control-etcd-key-file=/etc/weft/etcd/node2-key.pem --config=/etc/weft/other.yaml --key-file=/etc/weft/other/node.key", etcd.Endpoints()[0])
	for command, want := range map[string]string{
		"weft init" + flags: "etcd has a cluster under /weft, with node node1: run `weft join` with the same flags",
		"weft join --cluster-cidrs=10.244.0.0/16" + flags:                                "node node2 is registered already, with the key ",
		"weft join --cluster-cidrs=10.99.0.0/16 --node=node3" + flags:                    "which is in none of the cluster CIDRs (10.99.0.0/16)",
		"weft join --cluster-cidrs=10.244.0.0/16 --control-etcd-prefix=/another" + flags: "etcd has no nodes under /another",
	} {
		ended := finish(t, asInstalled(t, stage{at: f.nodes["node2"].Namespace, node: f.nodes["node2"]}, command))
		if ended.status == 0 || !strings.Contains(ended.stderr, want) || exists(filepath.Join(f.nodes["node2"].Dir(), "other.yaml")) {
			t.Errorf("%s: exit status %d\n%s%s", command, ended.status, ended.stdout, ended.stderr)
		}
	}
}
