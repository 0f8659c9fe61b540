package handshake_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"weft/encap/sealed/handshake"
)

// Each way in which a handshake fails is said in the words of those who run the nodes, with
// what they can do.
func TestFailuresSayWhatTheyMean(t *testing.T) {
	for _, tc := range []struct {
		name string
		fail func(network *sim, a, b *simNode)
		want string
		log  bool // b's log names the peer and the key that it shows
	}{
		{"the peer's list has another key", func(_ *sim, a, b *simNode) { b.knowPeers(withKey(a.self, 9)) },
			"node2's list has another key for this node, or none; write key: %[1]s for this node there", true},
		{"this node's list has another key", func(_ *sim, a, b *simNode) { a.knowPeers(withKey(b.self, 9)) },
			"this node's list has another key for node2 than the node at 192.168.0.2:9338 presents; write key: %[2]s there if that is node2", false},
		{"the peer does not answer", func(network *sim, _, _ *simNode) {
			network.setPass(func(_, _ netip.AddrPort, _ []byte) bool { return false })
		}, "node2 does not answer at 192.168.0.2:9338; check that weftd runs there, that its list has this node's endpoint, and that UDP port 9338 is open both ways", false},
		{"the peer does not know this node", func(_ *sim, _, b *simNode) { b.knowPeers() },
			"node2 does not answer at 192.168.0.2:9338; check that weftd runs there, that its list has this node's endpoint, and that UDP port 9338 is open both ways", false},
		{"the link is too narrow", func(network *sim, _, _ *simNode) { network.refuse = func([]byte) error { return syscall.EMSGSIZE } },
			"the link to node2 at 192.168.0.2:9338 is too narrow for a handshake; raise its MTU to 1228 at least", false},
		{"the host has no route", func(network *sim, _, _ *simNode) {
			network.refuse = func([]byte) error { return fmt.Errorf("send a datagram: %w", syscall.ENETUNREACH) }
		}, "this host can't send to node2 at 192.168.0.2:9338: send a datagram: network is unreachable; check its routes and firewall", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network, nodes := simNodes(t, 2)
				a, b := nodes[0], nodes[1]
				tc.fail(network, a, b)
				to := *b.self
				to.Key = a.manager.Status()[0].Key
				a.send(&to, "hello")
				time.Sleep(10 * time.Second)
				s := a.manager.Status()[0]
				want := tc.want
				if strings.Contains(want, "%") {
					want = fmt.Sprintf(want, a.self.Key, b.self.Key)
				}
				if s.State != handshake.Unreachable || s.Err == nil || s.Err.Error() != want {
					t.Errorf("%s: %v\nwant %s", s.State, s.Err, want)
				}
				if a.logged("peer unreachable") == 0 {
					t.Errorf("the log says:\n%s", a.log)
				}
				if tc.log && (b.logged("handshake refused") != 1 || b.logged(a.self.Key.String()) == 0) {
					t.Errorf("the other node's log says:\n%s", b.log)
				}
			})
		})
	}
}

// What only another version of weft, or a busy node, would answer.
func TestRefusalsSayWhatTheyMean(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := simNodes(t, 2)
		alert := func(number quic.TransportErrorCode) error {
			return fmt.Errorf("read a hello: %w", &quic.TransportError{Remote: true, ErrorCode: 0x100 + number})
		}
		for _, tc := range []struct {
			err  error
			want string
		}{
			{alert(42), "node2's list has another key for this node, or none; write key: " + nodes[0].self.Key.String() + " for this node there"},
			{alert(120), "node2 speaks another version of the handshake than this node's (weft/2); run the same version of weft on both"},
			{alert(40), "node2 and this node have no TLS 1.3 with X25519MLKEM768 in common; run the same version of weft on both"},
			{alert(70), "node2 and this node have no TLS 1.3 with X25519MLKEM768 in common; run the same version of weft on both"},
			{alert(80), "node2 refused the handshake with the TLS alert 80; run the same version of weft on both"},
			{&quic.TransportError{Remote: true, ErrorCode: quic.ConnectionRefused}, "node2 has too many handshakes under way; weftd retries"},
			{&quic.ApplicationError{Remote: true, ErrorCode: handshake.CodeBusy}, "node2 has too many handshakes under way; weftd retries"},
			{&quic.ApplicationError{Remote: true, ErrorCode: handshake.CodeRefused}, "node2 aborted the handshake; its log at level debug says why"},
			{&quic.ApplicationError{Remote: true, ErrorCode: handshake.CodeGone}, "node2 was stopped, or its list does not have this node any more"},
			{errors.New("anything else"), "anything else"},
		} {
			if got := nodes[0].manager.Explain(tc.err); got != tc.want {
				t.Errorf("%v:\n%s\nwant %s", tc.err, got, tc.want)
			}
		}
	})
}
