package yamltree

import (
	"encoding/json"
	"iter"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"weft/internal/strict"
)

// Kind says which shape a Node has.
type Kind int

const (
	// Refused is a value that was made a problem of when it was parsed. It keeps
	// its place in the tree, so that its key isn't missed as well.
	Refused Kind = iota

	Scalar
	List
	Mapping
)

func (k Kind) String() string {
	return [...]string{"a refused value", "a single value", "a list", "a mapping"}[k]
}

// Node is one value of the file.
type Node struct {
	// Name is the key of a mapping's value, or the index ("[3]") of a list's item.
	Name string

	Kind Kind

	// Text is what a Scalar says, without its quotes.
	Text string

	// plain says that the Scalar was written without quotes.
	plain bool

	// Children are the values of a Mapping, as written.
	Children []*Node

	file   string
	line   int
	parent *Node
	depth  int // 0 is the document's

	// items are those of a List before Items was asked for them.
	items []*yaml.Node
}

// Origin returns file and line: "/etc/weft/weft.yaml:7".
func (n *Node) Origin() string { return lineOf(n.file, n.line) }

// Path returns the dotted key that leads to the node: "tun.driver",
// "nodes[3].podCIDRs[0]". The document's is empty.
func (n *Node) Path() string {
	if n.parent == nil {
		return ""
	}
	return joinPath(n.parent.Path(), n.Name)
}

// plainName is what needs no quotes in a message.
var plainName = regexp.MustCompile(`^([A-Za-z0-9_-]{1,64}|\[[0-9]+\])$`)

func joinPath(path, name string) string {
	if !plainName.MatchString(name) {
		name = strict.Quote(name)
	}
	if path == "" || strings.HasPrefix(name, "[") {
		return path + name
	}
	return path + "." + name
}

// Get returns the value of a mapping's key, or nil if the key is missing or n is
// no mapping.
func (n *Node) Get(name string) *Node {
	if n == nil || n.Kind != Mapping {
		return nil
	}
	if i := slices.IndexFunc(n.Children, func(c *Node) bool { return c.Name == name }); i >= 0 {
		return n.Children[i]
	}
	return nil
}

// Items returns the items of a List as written, for one time. Each is made when it is its
// turn, and nothing keeps it afterwards: a long list never is in memory as a whole in this
// shape. What it refuses goes to problems.
func (n *Node) Items(problems *strict.Problems) iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		items := n.items
		n.items = nil
		for i, item := range items {
			items[i] = nil
			if !yield(n.child(item, "["+strconv.Itoa(i)+"]", item.Line, problems)) {
				return
			}
		}
	}
}

// Len returns how many items a List has before Items was asked for them.
func (n *Node) Len() int { return len(n.items) }

// JSON returns what stands below n, for one time. Without quotes, true, false and numbers
// written as JSON has them are these; every other scalar is a string.
func (n *Node) JSON(problems *strict.Problems) any {
	switch n.Kind {
	case Mapping:
		fields := map[string]any{}
		for _, child := range n.Children {
			fields[child.Name] = child.JSON(problems)
		}
		return fields
	case List:
		items := []any{}
		for item := range n.Items(problems) {
			items = append(items, item.JSON(problems))
		}
		return items
	}
	if n.plain && json.Valid([]byte(n.Text)) {
		return json.RawMessage(n.Text)
	}
	return n.Text
}

// Is reports whether n is of the given kind, and makes a problem of it if not.
func (n *Node) Is(want Kind, problems *strict.Problems) bool {
	if n.Kind == want || n.Kind == Refused {
		return n.Kind == want
	}
	remedy := map[Kind]string{
		Scalar:  "write the value alone, in quotes if it has a colon at its end",
		List:    "write its items with a dash before each",
		Mapping: "write keys with their values",
	}[want]
	if want == List && n.Kind == Scalar && singleItem.MatchString(n.Text) {
		remedy = "write " + n.Name + ": [" + quoteIfNeeded(n.Text) + "]"
	}
	problems.Addf(n.Origin(), n.Path(), "must be %s, not %s; %s", want, n.Kind, remedy)
	return false
}

// singleItem is what can be shown as an item: no object and no URL with a password.
var singleItem = regexp.MustCompile(`^[A-Za-z0-9._:/-]*$`)

func quoteIfNeeded(text string) string {
	if strings.Contains(text, ":") || len(text) > 64 {
		return strict.Quote(text)
	}
	return text
}

// OnlyKeys makes a problem of every key of a mapping that is not a known one.
func (n *Node) OnlyKeys(problems *strict.Problems, known ...string) {
	for _, child := range n.Children {
		if !slices.Contains(known, child.Name) {
			problems.Addf(child.Origin(), child.Path(), "unknown key; %s", strict.DidYouMean(child.Name, known))
		}
	}
}

// child returns the node for y, whose key (or whose self, if it has none) is in line.
func (n *Node) child(y *yaml.Node, name string, line int, problems *strict.Problems) *Node {
	c := &Node{Name: name, file: n.file, line: line, parent: n, depth: n.depth + 1}
	c.fill(y, problems)
	return c
}

// fill gives n the content of y; n stays Refused if that is not allowed.
func (n *Node) fill(y *yaml.Node, problems *strict.Problems) {
	refuse := func(format string, args ...any) { problems.Addf(n.Origin(), n.Path(), format, args...) }
	switch {
	case y.Kind == yaml.AliasNode:
		refuse("aliases are not allowed; write the value out")
	case y.Style&yaml.TaggedStyle != 0:
		refuse("the tag %s is not allowed; remove it", strict.Quote(y.Tag))
	case n.depth > maxDepth:
		refuse("nested more than %d levels deep; nothing here is", maxDepth)
	case isNull(y):
		refuse("has no value; write one or remove the key")
	case y.Kind == yaml.ScalarNode:
		n.Kind, n.Text = Scalar, y.Value
		n.plain = y.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
	case y.Kind == yaml.SequenceNode:
		n.Kind, n.items = List, y.Content
	default:
		n.Kind = Mapping
		n.addChildren(y, problems)
	}
}

// addChildren adds the values of a mapping.
func (n *Node) addChildren(y *yaml.Node, problems *strict.Problems) {
	lines := make(map[string]int, len(y.Content)/2)
	for i := 0; i+1 < len(y.Content); i += 2 {
		key, value := y.Content[i], y.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			problems.Addf(lineOf(n.file, key.Line), n.Path(), "a key must be plain text; write it without brackets and aliases")
			continue
		}
		if first, taken := lines[key.Value]; taken {
			problems.Addf(lineOf(n.file, key.Line), joinPath(n.Path(), key.Value), "already written in line %d; remove one of the two", first)
			continue
		}
		lines[key.Value] = key.Line
		n.Children = append(n.Children, n.child(value, key.Value, key.Line, problems))
	}
}

// isNull reports whether a value is null ("key:" or "key: ~"), and not an empty string.
func isNull(y *yaml.Node) bool {
	return y.Kind == yaml.ScalarNode && y.ShortTag() == "!!null"
}
