package file

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/control"
	"weft/peer"
)

const twoNodes = `nodes:
- name: node1
  endpoint: 192.168.77.1:9338
  podCIDRs: [10.244.1.0/24, "fd00:244:0:1::/64"]
- name: node2
  endpoint: "[fd00:77::2]:9338"
  addresses: [192.168.78.2, "fd00:78::2"]
  podCIDRs:
  - 10.244.2.0/24
  vtepMAC: 02:00:00:00:00:02
`

// fingerprint is one, as `weft keygen` prints it.
const fingerprint = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

func TestNodesAreReadWithTheirLines(t *testing.T) {
	got, err := Parse("nodes.yaml", []byte(twoNodes))
	if err != nil {
		t.Fatal(err)
	}
	want := control.State{Origin: "nodes.yaml", Nodes: []control.Node{{
		Name: "node1", Endpoint: netip.MustParseAddrPort("192.168.77.1:9338"), Origin: "nodes.yaml:2",
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:244:0:1::/64")},
	}, {
		Name: "node2", Endpoint: netip.MustParseAddrPort("[fd00:77::2]:9338"), Origin: "nodes.yaml:5",
		Addresses: []netip.Addr{netip.MustParseAddr("192.168.78.2"), netip.MustParseAddr("fd00:78::2")},
		PodCIDRs:  []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")},
		VTEPMAC:   peer.MAC{2, 0, 0, 0, 0, 2},
	}}}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
}

// withKeys are nodes, one a line.
func withKeys(keys ...string) string {
	var nodes strings.Builder
	for _, key := range keys {
		fmt.Fprintf(&nodes, "- {name: a, endpoint: 192.168.77.1:9338, podCIDRs: [10.244.1.0/24], key: %s}\n", key)
	}
	return nodes.String()
}

func TestANodesKeyIsReadHoweverItsDigitsLook(t *testing.T) {
	for _, text := range []string{
		fingerprint,
		strings.ToUpper(fingerprint),
		"'" + fingerprint + "'",
		strings.Repeat("1", 64),        // YAML takes it for a number
		"1e" + strings.Repeat("2", 62), // and this one
	} {
		state, err := Parse("nodes.yaml", []byte(twoNodes+"  key: "+text+"\n"))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		want := strings.ToLower(strings.Trim(text, "'"))
		if got := state.Nodes[1].Key.String(); got != want || state.Nodes[0].Key != (peer.Fingerprint{}) {
			t.Errorf("%s: the keys are %s and %s", text, state.Nodes[0].Key, got)
		}
	}
}

func TestMistakesInTheFile(t *testing.T) {
	const noFingerprint = " is not a fingerprint; write the 64 hexadecimal digits that `weft keygen` prints, or remove the key\n"
	tests := []struct{ name, file, want string }{
		{"empty file", "", `nodes.yaml: nodes: missing; list the cluster's nodes under it`},
		{"no list", "nodes:\n", `nodes.yaml:1: nodes: has no value; write one or remove the key`},
		{"mapping of nodes", "nodes:\n  node1: {endpoint: 192.168.77.1:9338}\n", `nodes.yaml:1: nodes: must be a list, not a mapping; write its items with a dash before each`},
		{"list at the top", "- name: node1\n", `nodes.yaml:1: must be a mapping, not a list; write keys with their values`},
		{"unknown keys", "nodes: []\nnode: []\nclusterCIDRs: [10.244.0.0/16]\n", `nodes.yaml:2: node: unknown key; did you mean nodes?
nodes.yaml:3: clusterCIDRs: unknown key; remove it`},
		{"unknown keys of a node", strings.Replace(twoNodes, "  vtepMAC", "  colour: blue\n  podCIDR: 10.244.3.0/24\n  vtepMac", 1), `nodes.yaml:10: nodes[1].colour: unknown key; remove it
nodes.yaml:11: nodes[1].podCIDR: unknown key; did you mean podCIDRs?
nodes.yaml:12: nodes[1].vtepMac: unknown key; did you mean vtepMAC?`},
		{"duplicate keys", twoNodes + "  name: node3\nnodes: []\n", `nodes.yaml:11: nodes[1].name: already written in line 5; remove one of the two
nodes.yaml:12: nodes: already written in line 1; remove one of the two`},
		{"missing keys", "nodes:\n- name: node1\n- endpoint: 192.168.77.1:9338\n- podCIDRs: []\n- {}\n-\n- node1\n", `nodes.yaml:2: nodes[0]: endpoint is missing; a node has name, endpoint and podCIDRs
nodes.yaml:2: nodes[0]: podCIDRs is missing; a node has name, endpoint and podCIDRs
nodes.yaml:3: nodes[1]: name is missing; a node has name, endpoint and podCIDRs
nodes.yaml:3: nodes[1]: podCIDRs is missing; a node has name, endpoint and podCIDRs
nodes.yaml:4: nodes[2]: name is missing; a node has name, endpoint and podCIDRs
nodes.yaml:4: nodes[2]: endpoint is missing; a node has name, endpoint and podCIDRs
nodes.yaml:5: nodes[3]: name is missing; a node has name, endpoint and podCIDRs
nodes.yaml:5: nodes[3]: endpoint is missing; a node has name, endpoint and podCIDRs
nodes.yaml:5: nodes[3]: podCIDRs is missing; a node has name, endpoint and podCIDRs
nodes.yaml:6: nodes[4]: has no value; write one or remove the key
nodes.yaml:7: nodes[5]: must be a mapping, not a single value; write keys with their values`},
		{"wrong values", `nodes:
- name: Node1
  endpoint: node1.example:9338
  podCIDRs: 10.244.1.0/24
- name: [node2]
  endpoint: 192.168.77.2
  podCIDRs: [10.244.2.7/24, all, {a: b}]
  vtepMAC: 02:00:00:00:00
- name: node3
  endpoint: 192.168.77.3:99999
  podCIDRs: ["::ffff:10.244.3.0/120"]
  vtepMAC: 00:00:00:00:00:00
- name: node4
  endpoint: {addr: 192.168.77.4}
  podCIDRs: [10.244.4.0/24]
  vtepMAC: 02-00-00-00-00-04-05-06
`, `nodes.yaml:2: nodes[0].name: "Node1" is not a valid node name; use lower-case letters, digits, '-' and '.', with a letter or digit at both ends of every part
nodes.yaml:3: nodes[0].endpoint: "node1.example:9338" is not an IP address and port; write it like 192.168.77.1:9338 or [fd00:77::1]:9338
nodes.yaml:4: nodes[0].podCIDRs: must be a list, not a single value; write podCIDRs: [10.244.1.0/24]
nodes.yaml:5: nodes[1].name: must be a single value, not a list; write the value alone, in quotes if it has a colon at its end
nodes.yaml:6: nodes[1].endpoint: 192.168.77.2 has no port; write it like 192.168.77.2:9338
nodes.yaml:7: nodes[1].podCIDRs[0]: 10.244.2.7/24 has bits set behind its length; write 10.244.2.0/24
nodes.yaml:7: nodes[1].podCIDRs[1]: "all" is not an IP prefix; write it like 10.244.0.0/16 or fd00:244::/48
nodes.yaml:7: nodes[1].podCIDRs[2]: must be a single value, not a mapping; write the value alone, in quotes if it has a colon at its end
nodes.yaml:8: nodes[1].vtepMAC: "02:00:00:00:00" is not an Ethernet address; write it like 02:00:00:00:00:01, or remove the key
nodes.yaml:10: nodes[2].endpoint: "192.168.77.3:99999" is not an IP address and port; write it like 192.168.77.1:9338 or [fd00:77::1]:9338
nodes.yaml:11: nodes[2].podCIDRs[0]: ::ffff:10.244.3.0/120 is IPv4-mapped; write 10.244.3.0/24
nodes.yaml:12: nodes[2].vtepMAC: "00:00:00:00:00:00" is not an Ethernet address; write it like 02:00:00:00:00:01, or remove the key
nodes.yaml:14: nodes[3].endpoint: must be a single value, not a mapping; write the value alone, in quotes if it has a colon at its end
nodes.yaml:16: nodes[3].vtepMAC: "02-00-00-00-00-04-05-06" is not an Ethernet address; write it like 02:00:00:00:00:01, or remove the key`},
		{"keys", "nodes:\n" + withKeys("c29tZQ==", fingerprint[1:], fingerprint+"0", fingerprint+"00", strings.Repeat(fingerprint, 1000),
			"SHA256:"+fingerprint[7:], strings.Repeat("0", 64), "''", "", "["+fingerprint+"]"), `nodes.yaml:2: nodes[0].key: "c29tZQ=="` + noFingerprint + `nodes.yaml:3: nodes[1].key: "0112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"` + noFingerprint + `nodes.yaml:4: nodes[2].key: "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"...` + noFingerprint + `nodes.yaml:5: nodes[3].key: "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"...` + noFingerprint + `nodes.yaml:6: nodes[4].key: "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"...` + noFingerprint + `nodes.yaml:7: nodes[5].key: "SHA256:3445566778899aabbccddeeff00112233445566778899aabbccddeeff"` + noFingerprint + `nodes.yaml:8: nodes[6].key: "0000000000000000000000000000000000000000000000000000000000000000"` + noFingerprint + `nodes.yaml:9: nodes[7].key: ""` + noFingerprint + `nodes.yaml:10: nodes[8].key: has no value; write one or remove the key
nodes.yaml:11: nodes[9].key: must be a single value, not a list; write the value alone, in quotes if it has a colon at its end`},
		{"alias", "nodes:\n- &a\n  name: node1\n  endpoint: 192.168.77.1:9338\n  podCIDRs: [10.244.1.0/24]\n- *a\n", `nodes.yaml:6: nodes[1]: aliases are not allowed; write the value out`},
		{"broken syntax", "nodes:\n- name: node1\n endpoint: 192.168.77.1:9338\n", `nodes.yaml:3: not valid YAML at column 2: did not find expected key (while parsing a block mapping that began in line 1); correct the indentation, quotes or brackets here or just before`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("nodes.yaml", []byte(tt.file))
			if err == nil {
				t.Fatal("accepted")
			}
			if got := err.Error(); got != tt.want {
				t.Errorf("error:\n%s\nwant:\n%s", got, tt.want)
			}
		})
	}
}

func TestLoadReportsAnAbsentFile(t *testing.T) {
	_, err := New("/no/such/../nodes.yaml").Load(t.Context())
	want := "/no/nodes.yaml: file does not exist; write it, or set the configuration's key control.file to another"
	if err == nil || err.Error() != want {
		t.Errorf("%v; want %s", err, want)
	}
}

// What a nodes.yaml says is either refused, or a State whose values are all valid.
func FuzzNodes(f *testing.F) {
	f.Add([]byte(twoNodes))
	f.Add([]byte("nodes: &a [*a, {name: a, name: b}, !!x y, ~]\n"))
	f.Add([]byte("nodes:\n- {name: a, endpoint: '[::1%0]:1', podCIDRs: [::/0], vtepMAC: 02:00:00:00:00:00:00:00}\n"))
	f.Add([]byte("nodes:\n" + withKeys(fingerprint, fingerprint+"00", "''")))
	f.Fuzz(func(t *testing.T, data []byte) {
		state, err := Parse("nodes.yaml", data)
		if err != nil {
			if len(err.Error()) > 64<<10 {
				t.Errorf("the message has %d bytes", len(err.Error()))
			}
			return
		}
		for _, n := range state.Nodes {
			if n.Name == "" || !n.Endpoint.IsValid() || n.Origin == "" {
				t.Errorf("accepted, but incomplete: %+v", n)
			}
			for _, p := range n.PodCIDRs {
				if !p.IsValid() || p != p.Masked() {
					t.Errorf("accepted the pod CIDR %s", p)
				}
			}
		}
		// A plan may be refused, but not panic.
		options := control.Options{Node: "node1", ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}}
		_, _ = control.NewPlan(state, options)
		options.Key[0] = 1
		_, _ = control.NewPlan(state, options)
	})
}

func BenchmarkParse5000Nodes(b *testing.B) {
	var text strings.Builder
	text.WriteString("nodes:\n")
	for i := range 5000 {
		fmt.Fprintf(&text, "- name: node%d\n  endpoint: 172.16.%d.%d:9338\n  podCIDRs: [10.%d.%d.0/24, \"fd00:0:0:%x::/64\"]\n", i, i>>8, i&255, i>>8, i&255, i)
	}
	data := []byte(text.String())
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("nodes.yaml", data); err != nil {
			b.Fatal(err)
		}
	}
}
