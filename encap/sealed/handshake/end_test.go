package handshake_test

import (
	"testing"

	"weft/encap"
)

// A list of nodes may be under way to a manager when weftd ends.
func TestAManagerThatHasEndedTakesNoMoreLists(t *testing.T) {
	for name, list := range map[string]func(b, c *encap.Peer) []*encap.Peer{
		"with the same peer":    func(b, c *encap.Peer) []*encap.Peer { return []*encap.Peer{b} },
		"with one more":         func(b, c *encap.Peer) []*encap.Peer { return []*encap.Peer{b, c} },
		"without any":           func(b, c *encap.Peer) []*encap.Peer { return nil },
		"with another in place": func(b, c *encap.Peer) []*encap.Peer { return []*encap.Peer{c} },
	} {
		t.Run(name, func(t *testing.T) {
			nodes := newNodes(t, 3)
			a, b, c := nodes[0], nodes[1], nodes[2]
			acquaint(a, b)
			a.stop()
			a.know(list(b.self, c.self)...)
			if got := a.manager.Status(); len(got) != 0 {
				t.Errorf("it has peers: %+v", got)
			}
			if err := a.manager.Rotate(t.Context(), c.self.Name); err == nil {
				t.Error("it agrees on keys")
			}
		})
	}
}
