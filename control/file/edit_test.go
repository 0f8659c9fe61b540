package file

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/control"
	"weft/peer"
)

// third is a node that has all that a node can have.
func third(t *testing.T) control.Node {
	t.Helper()
	key, err := peer.ParseFingerprint(fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	return control.Node{
		Name: "node3", Endpoint: netip.MustParseAddrPort("[fd00:77::3]:9338"), Key: key, VTEPMAC: peer.MAC{2, 0, 0, 0, 0, 3},
		Addresses: []netip.Addr{netip.MustParseAddr("192.168.78.3")},
		PodCIDRs:  []netip.Prefix{netip.MustParsePrefix("10.244.3.0/24"), netip.MustParsePrefix("fd00:244:0:3::/64")},
	}
}

const thirdText = `- name: node3
  endpoint: "[fd00:77::3]:9338"
  addresses: [192.168.78.3]
  podCIDRs: [10.244.3.0/24, "fd00:244:0:3::/64"]
  vtepMAC: "02:00:00:00:00:03"
  key: ` + fingerprint + "\n"

// TestAddKeepsWhatStandsThere: comments, blank lines, quotes and indentation.
func TestAddKeepsWhatStandsThere(t *testing.T) {
	const before = "# ours\nnodes: # all of them\n\n%- {name: \"node1\", endpoint: 192.168.77.1:9338, podCIDRs: [10.244.1.0/24]} # the first\n\n%- name: node2\n%  endpoint: 192.168.77.2:9338\n%  podCIDRs:\n%  - 10.244.2.0/24\n\n# the end"
	for _, margin := range []string{"", "  ", "      "} {
		text := strings.ReplaceAll(before, "%", margin)
		got, err := Add("nodes.yaml", []byte(text), third(t))
		if err != nil {
			t.Errorf("%q: %v", margin, err)
			continue
		}
		want := text + "\n" + margin + strings.TrimSuffix(strings.ReplaceAll(thirdText, "\n", "\n"+margin), margin)
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("%q: (-want +got)\n%s", margin, diff)
		}
	}
}

func TestAddToWhatItCannotExtend(t *testing.T) {
	for _, tt := range []struct{ name, file, want string }{
		{"brackets", "nodes: []\n", "nodes.yaml:1: the list is in brackets, to which weft adds nothing; write each node with a dash before it, or add the node yourself: {name: node3, "},
		{"end of the document", twoNodes + "...\n", "nodes.yaml: weft can't add a node to its end: nodes.yaml:"},
		{"a mistake", "nodes:\n- {}\n", "nodes.yaml:2: nodes[0]: name is missing"},
		{"nothing", "", "nodes.yaml: nodes: missing"},
	} {
		if got, err := Add("nodes.yaml", []byte(tt.file), third(t)); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %s\n%s", tt.name, err, tt.want, got)
		}
	}
}

// TestNodesAreReadAsTheyWereWritten in either form.
func TestNodesAreReadAsTheyWereWritten(t *testing.T) {
	null := third(t)
	null.Name = "null"
	for _, n := range []control.Node{third(t), null, {Name: "1e3", Endpoint: netip.MustParseAddrPort("192.168.77.1:1"), PodCIDRs: third(t).PodCIDRs[:1]}} {
		if got, err := ParseEntry(Entry(n)); err != nil || !sameNodes([]control.Node{got}, []control.Node{n}) {
			t.Errorf("%s: %+v, %v", Entry(n), got, err)
		}
		if got, err := Parse("nodes.yaml", List(n, third(t))); err != nil || !sameNodes(got.Nodes, []control.Node{n, third(t)}) {
			t.Errorf("%s: %+v, %v", List(n, third(t)), got, err)
		}
	}
}

func TestMistakesInEntries(t *testing.T) {
	one := Entry(third(t))
	for text, want := range map[string]string{
		"":                  "the entry:2: nodes[0]: has no value",
		"node3":             "the entry:2: nodes[0]: must be a mapping",
		one + "\n- " + one:  "it has 2 nodes; write one",
		one + "\nnodes: []": "the entry:3: nodes: already written in line 1",
		strings.Replace(one, "[fd00:77::3]", "fd00:77::3", 1): "the entry:2: nodes[0].endpoint: fd00:77::3:9338 has no port",
		"{name: \x1b[2J}": "the entry:2: is not text",
	} {
		if _, err := ParseEntry(text); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v; want %s", text, err, want)
		}
	}
}

// FuzzAdd: a list is either refused, or has one more node and all the bytes from before.
func FuzzAdd(f *testing.F) {
	f.Add([]byte(twoNodes))
	f.Add([]byte("nodes:\n  - {name: a, endpoint: '192.0.2.1:1', podCIDRs: [10.0.0.0/8]}\n  #"))
	f.Add([]byte("{nodes: [{name: a, endpoint: '192.0.2.1:1', podCIDRs: [10.0.0.0/8]}]}"))
	f.Add([]byte("---\nnodes:\n- name: a\n  endpoint: '192.0.2.1:1'\n  podCIDRs: [10.0.0.0/8]\n  key: >\n    a\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		n := control.Node{Name: "new", Endpoint: netip.MustParseAddrPort("192.0.2.9:1"), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}}
		before, err := Parse("nodes.yaml", data)
		got, addErr := Add("nodes.yaml", data, n)
		if addErr != nil {
			return
		}
		after, parseErr := Parse("nodes.yaml", got)
		if err != nil || parseErr != nil || !sameNodes(after.Nodes, append(before.Nodes, n)) || !strings.HasPrefix(string(got), string(data)) {
			t.Errorf("%q became %q: %v, %v", data, got, err, parseErr)
		}
	})
}
