package explain

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"weft/fib"
)

// A question between nodes is this version, the protocol, the port, and both addresses as IPv6
// ones; an answer is JSON. docs/WIRE.md has both.
const (
	questionVersion = 1
	questionLen     = 1 + 1 + 2 + 16 + 16

	protocolTCP = 6
	protocolUDP = 17
)

// Question returns the query as a peer is asked.
func (q Query) Question() []byte {
	b := []byte{questionVersion, protocolTCP}
	if q.Protocol == "udp" {
		b[1] = protocolUDP
	}
	b = binary.BigEndian.AppendUint16(b, q.Port)
	for _, a := range []netip.Addr{q.Source, q.Destination} {
		as16 := a.As16()
		b = append(b, as16[:]...)
	}
	return b
}

// ParseQuestion reads what Question returns.
func ParseQuestion(b []byte) (q Query, err error) {
	if len(b) != questionLen || b[0] != questionVersion {
		return q, errors.New("this is no question of a version that this weft knows")
	}
	switch b[1] {
	case protocolTCP:
		q.Protocol = "tcp"
	case protocolUDP:
		q.Protocol = "udp"
	default:
		return q, fmt.Errorf("the protocol %d is not known", b[1])
	}
	q.Port = binary.BigEndian.Uint16(b[2:])
	q.Source = netip.AddrFrom16([16]byte(b[4:20])).Unmap()
	q.Destination = netip.AddrFrom16([16]byte(b[20:36])).Unmap()
	if q.Source.Is4() != q.Destination.Is4() {
		return q, errors.New("the addresses are of different families")
	}
	return q, nil
}

// wireAnswer is an answer between nodes. Omitted says that the first steps are left out. The verdict has
// no remedy: a node gives no advice that another one wrote.
type wireAnswer struct {
	Steps   [][2]string `json:"s"`
	Omitted bool        `json:"o,omitempty"`
	Verdict struct {
		Delivered bool   `json:"delivered"`
		Text      string `json:"text"`
	} `json:"v"`
}

// Reply returns the answer as a peer receives it, in so many bytes at the most: the first steps are
// left out if there is no room for them. It returns nothing if there is none for the verdict.
func (a Answer) Reply(most int) []byte {
	w := wireAnswer{Steps: [][2]string{}}
	w.Verdict.Delivered, w.Verdict.Text = a.Verdict.Delivered, a.Verdict.Text
	for _, s := range a.Steps {
		w.Steps = append(w.Steps, [2]string{s.Part, s.Text})
	}
	for {
		b, err := json.Marshal(w)
		switch {
		case err != nil:
			return nil
		case len(b) <= most:
			return b
		case len(w.Steps) == 0:
			return nil
		}
		w.Steps, w.Omitted = w.Steps[1:], true
	}
}

// ParseReply reads what Reply returns: the answer of a node to a query. Whatever a peer says, the
// answer is about that query and no longer than what was received.
func ParseReply(b []byte, node string, q Query) (Answer, error) {
	var w wireAnswer
	if err := json.Unmarshal(b, &w); err != nil {
		return Answer{}, fmt.Errorf("read the answer of %s: %w", node, err)
	}
	a := Answer{Node: node, Query: q, Verdict: Verdict{Delivered: w.Verdict.Delivered, Text: w.Verdict.Text}, Steps: []Step{}}
	if w.Omitted {
		a.Steps = append(a.Steps, Step{"…", "the first steps don't fit into the answer"})
	}
	for _, s := range w.Steps {
		a.Steps = append(a.Steps, Step{s[0], s[1]})
	}
	return a, nil
}

// AnswerPeer returns the reply, of so many bytes at the most, to a peer's question about a packet between
// what lies behind the two nodes. It has no reply to any other question, and calls look, which may be
// expensive, only if it has one.
func AnswerPeer(table *fib.Table, from string, question []byte, most int, look func() (Node, error)) []byte {
	q, err := ParseQuestion(question)
	if err != nil || !between(table, q, from) {
		return nil
	}
	node, err := look()
	if err != nil {
		return nil
	}
	node.Table = table // a newer one may give the addresses to other nodes
	return node.discreet().Explain(q).Reply(most)
}

// between says whether a query is about packets between what lies behind this node and behind another
// one.
func between(table *fib.Table, q Query, other string) bool {
	owner := func(a netip.Addr) string {
		if p, ok := table.Lookup(a); ok {
			return p.Name
		}
		return ""
	}
	ends, want := []string{owner(q.Source), owner(q.Destination)}, []string{table.Self().Name, other}
	slices.Sort(ends)
	slices.Sort(want)
	return table.Self().Name != other && slices.Equal(ends, want)
}

// discreet returns what the node says to a peer: no pod has a name, and nothing is about packets
// other than the one that is asked about.
func (n Node) discreet() Node {
	pods := make(map[netip.Addr]Pod, len(n.Pods))
	for a, pod := range n.Pods {
		pods[a] = Pod{Link: pod.Link}
	}
	n.Pods, n.Drops, n.GuardDrops = pods, nil, nil
	return n
}
