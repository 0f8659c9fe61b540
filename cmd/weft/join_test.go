package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// joined is the host node2, to which the files of node1 were copied.
func joined(t *testing.T, node1 *host) *host {
	t.Helper()
	node2 := newHost(t, "node2")
	if err := os.MkdirAll(node2.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	node2.write("weft.yaml", node1.read("weft.yaml"))
	node2.write("nodes.yaml", node1.read("nodes.yaml"))
	return node2
}

// printedCommand is the last line of an output that has a command in quotes.
func printedCommand(t *testing.T, stdout string) (on, entry string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	on, rest, ok := strings.Cut(lines[len(lines)-1], ":  weft node add '")
	if !ok || !strings.HasPrefix(on, "Run on ") {
		t.Fatalf("no command in\n%s", stdout)
	}
	return strings.TrimPrefix(on, "Run on "), strings.TrimSuffix(rest, "'")
}

// TestJoinByCopiedFiles: afterwards both nodes have the same list, byte by byte.
func TestJoinByCopiedFiles(t *testing.T) {
	newNetwork(t)
	node1 := newHost(t, "node1")
	node1.must("init")
	node1.write("nodes.yaml", node1.read("nodes.yaml")+"# ours\n")
	node2 := joined(t, node1)
	on, entry := printedCommand(t, node2.must("join", "--advertise=192.0.2.2"))
	if want := `{name: node2, endpoint: "192.0.2.2:9338", podCIDRs: [10.244.1.0/24], key: ` + node2.fingerprint() + "}"; on != "node1" || entry != want {
		t.Errorf("on %s: %s\nwant %s", on, entry, want)
	}
	for range 2 { // again, and nothing changes
		node1.must("node", "add", entry)
		node2.must("join", "--advertise=192.0.2.1")
	}
	if diff := cmp.Diff(node1.read("nodes.yaml"), node2.read("nodes.yaml")); diff != "" {
		t.Errorf("the lists differ (-node1 +node2):\n%s", diff)
	}
	for _, h := range []*host{node1, node2} {
		if list := h.must("node", "list"); strings.Count(list, "\n") != 3 || strings.Contains(list, "REJECTED") {
			t.Errorf("weft node list:\n%s", list)
		}
	}
}

// TestAddedNodesThatWouldBeRejected leave the list as it was.
func TestAddedNodesThatWouldBeRejected(t *testing.T) {
	newNetwork(t)
	h := newHost(t, "node1")
	h.must("init")
	own := h.fingerprint()
	other := strings.Repeat("ab", 32)
	for _, tt := range []struct {
		entry, stderr string
		code          int
	}{
		{`{name: node2, endpoint: "192.0.2.2:9338", podCIDRs: [10.244.0.0/25], key: ` + other + `}`, "pod CIDR 10.244.0.0/25 overlaps 10.244.0.0/24 of node node1", exitFailure},
		{`{name: node2, endpoint: "192.0.2.1:9338", podCIDRs: [10.244.1.0/24], key: ` + other + `}`, "the endpoint address 192.0.2.1 is taken by node node1", exitFailure},
		{`{name: node2, endpoint: "192.0.2.2:9338", podCIDRs: [10.244.1.0/24], key: ` + own + `}`, "the key is that of node node1", exitFailure},
		{`{name: node2, endpoint: "192.0.2.2:9338", podCIDRs: [10.244.1.0/24]}`, "has no key, which the encapsulation sealed needs", exitFailure},
		{`{name: node1, endpoint: "192.0.2.2:9338", podCIDRs: [10.244.1.0/24], key: ` + other + `}`, "node node1 is in the list already, at 192.0.2.1:9338", exitFailure},
		{`{name: node2, endpoint: "192.0.2.2:9338", podCIDRs: [10.245.1.0/24], key: ` + other + `}`, "pod CIDR 10.245.1.0/24 is in none of the cluster CIDRs", exitFailure},
		{"name: node2", "the entry:2: nodes[0]: endpoint is missing", exitUsage},
		{"\x1b[2J", "the entry:2: is not text", exitUsage},
	} {
		before := h.files()
		code, stdout, stderr := h.weft("node", "add", tt.entry)
		if code != tt.code || stdout != "" || !strings.Contains(stderr, tt.stderr) || strings.Contains(stderr, "\x1b") {
			t.Errorf("%s: exit status %d, %s%s\nwant %d, %s", tt.entry, code, stdout, stderr, tt.code, tt.stderr)
		}
		if diff := cmp.Diff(before, h.files()); diff != "" {
			t.Errorf("%s: files (-before +after):\n%s", tt.entry, diff)
		}
	}
}

// TestListsKeepTheirPlaceAndRights: a link stays one, and what was readable stays so.
func TestListsKeepTheirPlaceAndRights(t *testing.T) {
	newNetwork(t)
	h := newHost(t, "node1")
	h.must("init")
	target := filepath.Join(h.dir, "elsewhere.yaml")
	for _, err := range []error{os.Rename(h.path("nodes.yaml"), target), os.Chmod(target, 0o640), os.Symlink("elsewhere.yaml", h.path("nodes.yaml"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	h.must("node", "add", `{name: node2, endpoint: "192.0.2.2:9338", podCIDRs: [10.244.1.0/24], key: `+strings.Repeat("ab", 32)+`}`)
	link, err := os.Readlink(h.path("nodes.yaml"))
	if err != nil || link != "elsewhere.yaml" || !strings.Contains(h.read("elsewhere.yaml"), "- name: node2\n") {
		t.Errorf("link to %q, %v", link, err)
	}
	if info, err := os.Stat(target); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// TestJoinOfTheWrongHost changes no list.
func TestJoinOfTheWrongHost(t *testing.T) {
	newNetwork(t)
	node1 := newHost(t, "node1")
	node1.must("init")
	copied := joined(t, node1)
	copied.flags[0] = "--node=node1" // such as by its host name
	before := copied.read("nodes.yaml")
	if code, _, stderr := copied.weft("join", "--advertise=192.0.2.2"); code != exitFailure || !strings.Contains(stderr, "nodes.yaml:3: node node1 is in the list already, at 192.0.2.1:9338 and with the key "+node1.fingerprint()+"; if it is the same node, correct its endpoint and key there on every node, and otherwise give one of the two another name\n") {
		t.Errorf("exit status %d, %s", code, stderr)
	}
	if after := copied.read("nodes.yaml"); after != before {
		t.Errorf("the list is now\n%s", after)
	}
}
