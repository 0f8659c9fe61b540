package handshake_test

import (
	"strings"
	"testing"

	"weft/encap/sealed/handshake"
)

// Nodes agree on keys over every underlay that IPv6 allows, and say why where they can't.
func TestHandshakeFitsNarrowLinks(t *testing.T) {
	for _, tc := range []struct {
		name    string
		payload int // of UDP, that the link carries
		fits    bool
	}{
		{"MTU 1280, IPv4", 1280 - 20 - 8, true},
		{"MTU 1280, IPv6", 1280 - 40 - 8, true},
		{"the least that QUIC needs", 1200, true},
		{"less", 1199, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			nodes := newNodes(t, 2, handshake.Narrow(tc.payload))
			a, b := nodes[0], nodes[1]
			acquaint(a, b)
			a.send(b.self, "hello")
			if tc.fits {
				b.expect(t, "hello")
				return
			}
			eventually(t, "the handshake fails", func() bool { return a.manager.Counts().Failed > 0 })
			if err := a.status(t, b).Err; !strings.Contains(err.Error(), "too narrow") {
				t.Errorf("the reason is %v", err)
			}
		})
	}
}
