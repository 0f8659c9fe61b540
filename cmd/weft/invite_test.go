package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/setup"
)

// inviting is a `weft invite -o json` that waits.
type inviting struct {
	*exec.Cmd
	lines  *bufio.Reader
	stderr strings.Builder
	token  string
}

// invite has a host invite a node, and returns once it waits.
func (h *host) invite(args ...string) *inviting {
	h.t.Helper()
	i := &inviting{Cmd: exec.CommandContext(h.t.Context(), os.Args[0], append(append([]string{"invite", "-o", "json"}, args...), h.flags...)...)}
	i.Env = append(os.Environ(), "TEST_AS_WEFT=1", "GORACE=atexit_sleep_ms=0")
	i.Stderr = &i.stderr
	out, err := i.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := i.Start(); err != nil {
		h.t.Fatal(err)
	}
	i.lines = bufio.NewReader(out)
	var made invitation
	i.read(h.t, &made)
	i.token = made.Token
	return i
}

func (i *inviting) read(t *testing.T, into any) {
	t.Helper()
	line, err := i.lines.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, into)
	}
	if err != nil {
		t.Fatalf("%v: %s: %s", err, line, i.stderr.String())
	}
}

// end returns what it says of the node that has joined.
func (i *inviting) end(t *testing.T) (guest setup.Node) {
	t.Helper()
	i.read(t, &guest)
	if _, err := io.Copy(io.Discard, i.lines); err != nil {
		t.Error(err)
	}
	if err := i.Wait(); err != nil {
		t.Errorf("%v: %s", err, i.stderr.String())
	}
	return guest
}

// TestJoinByToken: both nodes have the same list then, byte by byte, and each shows the other's fingerprint.
func TestJoinByToken(t *testing.T) {
	newNetwork(t)
	ip(t, "link set lo up") // for its own addresses
	node1 := newHost(t, "node1")
	node1.must("init", "--echo-port=9999")
	node1.write("nodes.yaml", node1.read("nodes.yaml")+"# ours\n")
	i := node1.invite()
	node2 := newHost(t, "node2")
	stdout := node2.must("join", i.token, "--advertise=192.0.2.2")
	for _, part := range []string{"joined         by node1, with the fingerprint " + node1.fingerprint() + "\n", "fingerprint    " + node2.fingerprint() + "\n", "pod CIDRs      10.244.1.0/24\n"} {
		if !strings.Contains(stdout, part) {
			t.Errorf("no %q in\n%s", part, stdout)
		}
	}
	guest := i.end(t)
	if guest.Name != "node2" || guest.Key.String() != node2.fingerprint() || len(guest.Others) > 0 {
		t.Errorf("node1 reports %+v", guest)
	}
	if text := node2.read("weft.yaml"); !strings.Contains(text, "\nclusterCIDRs: [10.244.0.0/16]\n") || !strings.Contains(text, "\n  port: 9999\n") {
		t.Errorf("node2's configuration:\n%s", text)
	}

	// A third node joins, and an operator adds it to the list of the second one.
	i = node1.invite("--for=1h")
	node3 := newHost(t, "node3")
	node3.must("join", i.token, "--advertise=198.51.100.3", "--pod-cidrs=10.244.9.0/26")
	guest = i.end(t)
	if diff := cmp.Diff([]string{"node2"}, guest.Others); diff != "" {
		t.Errorf("others (-want +got):\n%s", diff)
	}
	node2.must("node", "add", guest.Entry)
	for _, h := range []*host{node2, node3} {
		if diff := cmp.Diff(node1.read("nodes.yaml"), h.read("nodes.yaml")); diff != "" {
			t.Errorf("the lists differ (-node1 +other):\n%s", diff)
		}
	}
}

// TestJoinAgainAfterItBroke: a node that is in the list already, by its key, gets the list once more.
func TestJoinAgainAfterItBroke(t *testing.T) {
	newNetwork(t)
	ip(t, "link set lo up")
	node1, node2 := newHost(t, "node1"), newHost(t, "node2")
	node1.must("init")
	i := node1.invite()
	node2.must("join", i.token, "--advertise=192.0.2.2")
	first := i.end(t)
	for _, lost := range []string{"weft.yaml", "nodes.yaml"} {
		if err := os.Remove(node2.path(lost)); err != nil {
			t.Fatal(err)
		}
	}
	before := node1.read("nodes.yaml")
	i = node1.invite()
	node2.must("join", i.token, "--advertise=192.0.2.2")
	again := i.end(t)
	if again.Entry != first.Entry || node1.read("nodes.yaml") != before || node2.read("nodes.yaml") != before {
		t.Errorf("first %s\nthen %s\n%s", first.Entry, again.Entry, node2.read("nodes.yaml"))
	}
}

// TestRefusedJoinLeavesNothing but the key: neither on the new node, nor in the list of the other one.
func TestRefusedJoinLeavesNothing(t *testing.T) {
	newNetwork(t)
	ip(t, "link set lo up")
	node1 := newHost(t, "node1")
	node1.must("init")
	i := node1.invite()
	before := node1.read("nodes.yaml")
	for _, tt := range []struct {
		name, args, stderr string
		code               int
	}{
		{"node1", "--advertise=192.0.2.2", "weft: node node1 refuses this one: " + node1.path("nodes.yaml") + ":3: node node1 is in the list already", exitFailure},
		{"node2", "--advertise=192.0.2.1", "weft: node node1 refuses this one: " + node1.path("nodes.yaml") + " stays as it is, since weftd would reject it with node node2", exitFailure},
		{"node2", "--advertise=192.0.2.2 --pod-cidrs=10.244.0.0/26", "weft: node node1 refuses this one: ", exitFailure},
		{"node2", "--cluster-cidrs=10.244.0.0/16", "weft: the cluster CIDRs come with the token; remove --cluster-cidrs", exitUsage},
		{"node2", "--encapsulation=vxlan", "weft: a token is for nodes with keys", exitUsage},
		{"node2", "--dry-run", "weft: joining by a token can't be tried out", exitUsage},
		{"node2", "--control-etcd-prefix=/a", "weft: a token has nodes join a list of nodes in a file", exitUsage},
		{"node2", "--tun-lanes=99", `weft: --tun-lanes: "99" is not a whole number`, exitUsage},
	} {
		h := newHost(t, tt.name)
		code, stdout, stderr := h.weft(append([]string{"join", i.token}, strings.Fields(tt.args)...)...)
		if code != tt.code || stdout != "" || !strings.HasPrefix(stderr, tt.stderr) {
			t.Errorf("%s %s: exit status %d, %s%s\nwant %d, %s", tt.name, tt.args, code, stdout, stderr, tt.code, tt.stderr)
		}
		for name := range h.files() {
			if name != "node.key" {
				t.Errorf("%s %s: it wrote %s", tt.name, tt.args, name)
			}
		}
	}
	h := newHost(t, "node2")
	for token, want := range map[string]string{"node1": "weft: this is no token; ", i.token[:30]: "weft: the token is incomplete or was changed; "} {
		if code, _, stderr := h.weft("join", token); code != exitUsage || !strings.HasPrefix(stderr, want) || strings.Contains(stderr, i.token[:30]) {
			t.Errorf("exit status %d, %s", code, stderr)
		}
	}
	if now := node1.read("nodes.yaml"); now != before {
		t.Errorf("the list is now\n%s", now)
	}
	h.must("join", i.token, "--advertise=192.0.2.2")
	i.end(t)
}

func TestInviteThatCannotWait(t *testing.T) {
	newNetwork(t)
	ip(t, "link set lo up")
	node1, list := newHost(t, "node1"), newHost(t, "list")
	node1.must("init")
	list.must("init", "--encapsulation=vxlan")
	node1.invite()
	for _, tt := range []struct {
		h      *host
		args   []string
		code   int
		stderr string
	}{
		{node1, nil, exitFailure, "weft: wait for the new node: listen tcp 0.0.0.0:9338: bind: address already in use; another `weft invite` may be waiting there"},
		{node1, []string{"--at=192.0.2.1:9400", "--for=1ms"}, exitFailure, "weft: no node has joined within 1ms; run `weft invite` again"},
		{node1, []string{"--for=25h"}, exitUsage, "weft: --for: 25h0m0s is not a time up to 24h"},
		{node1, []string{"--at=192.0.2.1"}, exitUsage, "weft: --at: 192.0.2.1 has no port"},
		{list, nil, exitFailure, "weft: a token is for nodes with keys, which the encapsulation vxlan does not have"},
	} {
		code, _, stderr := tt.h.weft(append([]string{"invite"}, tt.args...)...)
		if code != tt.code || !strings.HasPrefix(stderr, tt.stderr) {
			t.Errorf("%v: exit status %d, %s\nwant %d, %s", tt.args, code, stderr, tt.code, tt.stderr)
		}
	}
}
