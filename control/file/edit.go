package file

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"weft/control"
	"weft/peer"
)

// List returns a nodes.yaml with nodes, of which each has a name, an endpoint and pod CIDRs.
func List(nodes ...control.Node) []byte {
	text := []byte("# The nodes of the cluster: the same file on every node. weftd reads it again whenever it changes.\nnodes:\n")
	for _, n := range nodes {
		text = appendNode(text, n, 0)
	}
	return text
}

// Entry returns a node as one line, as ParseEntry and a nodes.yaml in brackets have it.
func Entry(n control.Node) string { return "{" + strings.Join(fields(n), ", ") + "}" }

// ParseEntry reads a node that was written like an item of nodes.yaml.
func ParseEntry(text string) (control.Node, error) {
	state, err := Parse("the entry", []byte("nodes:\n- "+text+"\n"))
	if err != nil {
		return control.Node{}, fmt.Errorf("%w; write it in one line, as in {name: node2, endpoint: \"192.0.2.2:9338\", podCIDRs: [10.244.2.0/24], key: …}", err)
	}
	if len(state.Nodes) != 1 {
		return control.Node{}, fmt.Errorf("it has %d nodes; write one", len(state.Nodes))
	}
	state.Nodes[0].Origin = "the entry"
	return state.Nodes[0], nil
}

// fields are the keys of a node with their values.
func fields(n control.Node) []string {
	all := []string{"name: " + n.Name, "endpoint: " + scalar(n.Endpoint)}
	if n.Name == "null" { // which is none in YAML
		all[0] = `name: "null"`
	}
	if len(n.Addresses) > 0 {
		all = append(all, "addresses: "+list(n.Addresses))
	}
	all = append(all, "podCIDRs: "+list(n.PodCIDRs))
	if n.VTEPMAC != (peer.MAC{}) {
		all = append(all, "vtepMAC: "+scalar(n.VTEPMAC))
	}
	if n.Key != (peer.Fingerprint{}) {
		all = append(all, "key: "+n.Key.String())
	}
	return all
}

// scalar puts what has a colon, which may end a key in YAML, in quotes.
func scalar(value fmt.Stringer) string {
	text := value.String()
	if strings.Contains(text, ":") {
		return strconv.Quote(text)
	}
	return text
}

func list[T fmt.Stringer](items []T) string {
	texts := make([]string, len(items))
	for i, item := range items {
		texts[i] = scalar(item)
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

// appendNode appends a node as an item of a list whose dashes stand behind so many spaces.
func appendNode(text []byte, n control.Node, indent int) []byte {
	margin := strings.Repeat(" ", indent)
	for i, field := range fields(n) {
		mark := "  "
		if i == 0 {
			mark = "- "
		}
		text = fmt.Append(text, margin, mark, field, "\n")
	}
	return text
}

// Add returns the text of a nodes.yaml with one more node at its end. All that stands there already,
// comments too, stays as it is. Whether the node goes together with the others is for control.NewPlan
// to say.
func Add(path string, data []byte, n control.Node) ([]byte, error) {
	before, err := Parse(path, data)
	if err != nil {
		return nil, err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	nodes := document.Content[0].Content[1] // nodes is the only key
	if nodes.Style&yaml.FlowStyle != 0 {
		return nil, fmt.Errorf("%s:%d: the list is in brackets, to which weft adds nothing; write each node with a dash before it, or add the node yourself: %s", path, nodes.Line, Entry(n))
	}
	text := bytes.Clone(data)
	if !bytes.HasSuffix(text, []byte("\n")) {
		text = append(text, '\n')
	}
	text = appendNode(text, n, nodes.Column-1)
	// The end of the file needn't be that of the list: "..." may end the document.
	after, err := Parse(path, text)
	if err == nil && !sameNodes(after.Nodes, append(before.Nodes, n)) {
		err = errors.New("what would be written is not what was meant")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: weft can't add a node to its end: %w; add it yourself: %s", path, err, Entry(n))
	}
	return text, nil
}

// sameNodes compares nodes, wherever they are written.
func sameNodes(a, b []control.Node) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		x.Origin, y.Origin = "", ""
		if !reflect.DeepEqual(x, y) {
			return false
		}
	}
	return true
}
