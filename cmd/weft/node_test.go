package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// nodesFlags are flags of weft node for a list of nodes that a file holds.
func nodesFlags(t *testing.T, nodes string) []string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"nodes.yaml": nodes,
		"weft.yaml":  "node: node1\nclusterCIDRs: [10.244.0.0/16]\nencapsulation: vxlan\ncontrol: {file: " + dir + "/nodes.yaml}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return []string{"--config", filepath.Join(dir, "weft.yaml")}
}

const twoNodes = `nodes:
- {name: node1, endpoint: "192.168.77.1:9338", podCIDRs: [10.244.1.0/24]}
- {name: node2, endpoint: "192.168.77.1:9338", podCIDRs: [10.244.2.0/24], key: ` + someKey + `}
`

const someKey = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestNodeListShowsTheNodesAndWhyOneCanBeNoPeer(t *testing.T) {
	flags := nodesFlags(t, twoNodes)
	path := filepath.Join(filepath.Dir(flags[1]), "nodes.yaml")
	status, stdout, stderr := asWeft(t, append([]string{"node", "list"}, flags...)...)
	want := `NODE   ENDPOINT           POD CIDRS      KEY
node1  192.168.77.1:9338  10.244.1.0/24  -
node2  192.168.77.1:9338  10.244.2.0/24  0123456789abcdef…
       REJECTED: the endpoint address 192.168.77.1 is taken by node node1 (` + path + `:2); give each node its own
`
	if status != 0 || stdout != want {
		t.Errorf("exit status %d, %s\n%s\nwant\n%s", status, stderr, stdout, want)
	}
	status, stdout, _ = asWeft(t, append([]string{"node", "list", "-o", "json"}, flags...)...)
	for _, part := range []string{`"name": "node1"`, `"endpoint": "192.168.77.1:9338"`, `"podCIDRs": [`, `"key": "` + someKey, `"rejected": "the endpoint address`} {
		if status != 0 || !strings.Contains(stdout, part) {
			t.Errorf("exit status %d, no %s in\n%s", status, part, stdout)
		}
	}
}

func TestNodeRemoveNamesTheFile(t *testing.T) {
	flags := nodesFlags(t, twoNodes)
	status, _, stderr := asWeft(t, append([]string{"node", "remove", "node2"}, flags...)...)
	if want := "weft: weft can't remove a node from this control source; remove it from " + filepath.Dir(flags[1]) + "/nodes.yaml\n"; status != 1 || stderr != want {
		t.Errorf("exit status %d, %s", status, stderr)
	}
}

func TestNodeCommandsNameConfigErrors(t *testing.T) {
	status, _, stderr := asWeft(t, append([]string{"node", "list", "--control-etcd-endpoints=nowhere"}, nodesFlags(t, twoNodes)...)...)
	if status != 2 || !strings.Contains(stderr, `--control-etcd-endpoints: "nowhere" is not the URL of an etcd member`) {
		t.Errorf("exit status %d, %s", status, stderr)
	}
}
