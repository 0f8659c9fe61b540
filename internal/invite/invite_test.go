package invite

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/internal/nodekey"
	"weft/peer"
)

func newKey(t *testing.T) (ed25519.PrivateKey, peer.Fingerprint) {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key, nodekey.FingerprintOf(public)
}

// waiting is a host that waits on the loopback.
type waiting struct {
	*Host
	asked  atomic.Int32
	result chan error // of Serve
	joined *Request   // once there is a result
}

var cluster = Cluster{Node: "node1", ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, EchoPort: 9340}

// wait has a host wait until the test ends. It admits guests with the name node2.
func wait(t *testing.T) *waiting {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	key, fingerprint := newKey(t)
	at := netip.MustParseAddrPort(listener.Addr().String())
	w := &waiting{result: make(chan error, 1)}
	w.Host = &Host{Key: key, Token: NewToken(fingerprint, at), Cluster: cluster, Admit: func(r Request) ([]byte, error) {
		w.asked.Add(1)
		if r.Name != "node2" {
			return nil, errors.New("no\x1b[2J such node")
		}
		return []byte("the list\n"), nil
	}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var err error
		w.joined, err = w.Serve(ctx, listener)
		w.result <- err
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return w
}

// named describes a guest.
func named(name string) func(Cluster) (Request, error) {
	return func(Cluster) (Request, error) {
		return Request{Name: name, Endpoint: netip.MustParseAddrPort("192.0.2.2:9338")}, nil
	}
}

func TestGuestJoins(t *testing.T) {
	w := wait(t)
	key, fingerprint := newKey(t)
	token, err := ParseToken(w.Token.String())
	if err != nil || token != w.Token {
		t.Fatalf("the token is read as another: %v", err)
	}
	list, err := Join(t.Context(), token, key, func(c Cluster) (Request, error) {
		if diff := cmp.Diff(cluster, c, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("the cluster (-want +got):\n%s", diff)
		}
		return named("node2")(c)
	})
	if err != nil || string(list) != "the list\n" {
		t.Fatalf("%q, %v", list, err)
	}
	if err := <-w.result; err != nil {
		t.Fatal(err)
	}
	if r := w.joined; r.Name != "node2" || r.Key != fingerprint || r.Endpoint.String() != "192.0.2.2:9338" || w.Unproven() != 0 {
		t.Errorf("joined: %+v; %d without a proof", r, w.Unproven())
	}
}

// TestTokenIsForOneGuest: the second finds nothing that listens.
func TestTokenIsForOneGuest(t *testing.T) {
	w := wait(t)
	key, _ := newKey(t)
	if _, err := Join(t.Context(), w.Token, key, named("node2")); err != nil {
		t.Fatal(err)
	}
	if err := <-w.result; err != nil {
		t.Fatal(err)
	}
	if _, err := Join(t.Context(), w.Token, key, named("node2")); err == nil || !strings.HasPrefix(err.Error(), "reach the node that made the token: ") {
		t.Errorf("the second guest: %v", err)
	}
}

// TestTokenIsForOneGuestAtOnce: of many with the token, one joins.
func TestTokenIsForOneGuestAtOnce(t *testing.T) {
	w := wait(t)
	const guests = 4
	results := make(chan error, guests)
	for range guests {
		key, _ := newKey(t)
		go func() {
			_, err := Join(context.Background(), w.Token, key, named("node2"))
			results <- err
		}()
	}
	joined := 0
	for range guests {
		if <-results == nil {
			joined++
		}
	}
	if err := <-w.result; err != nil || joined != 1 || w.asked.Load() != 1 {
		t.Errorf("%d joined, %d were asked for, %v", joined, w.asked.Load(), err)
	}
}

// TestRefusedGuestMayTryAgain, and reads why it was refused.
func TestRefusedGuestMayTryAgain(t *testing.T) {
	w := wait(t)
	key, _ := newKey(t)
	if _, err := Join(t.Context(), w.Token, key, named("node3")); err == nil || err.Error() != "node node1 refuses this one: no\x1b[2J such node" {
		t.Errorf("%v", err)
	}
	withdrawn := errors.New("the cluster CIDRs overlap a network of this host")
	if _, err := Join(t.Context(), w.Token, key, func(Cluster) (Request, error) { return Request{}, withdrawn }); !errors.Is(err, withdrawn) {
		t.Errorf("%v", err)
	}
	if _, err := Join(t.Context(), w.Token, key, named("node2")); err != nil {
		t.Errorf("again: %v", err)
	}
}

// TestImpostorsGetNothing: a host with another key than the token's learns nothing that helps it towards
// the real one.
func TestImpostorsGetNothing(t *testing.T) {
	w := wait(t)
	key, _ := newKey(t)
	token := w.Token
	_, token.Host = newKey(t)
	_, err := Join(t.Context(), token, key, named("node2"))
	if err == nil || !strings.Contains(err.Error(), "it has the key "+w.Token.Host.String()+", and not "+token.Host.String()+" as the token says") {
		t.Errorf("%v", err)
	}
	if w.asked.Load() != 0 {
		t.Error("it asked all the same")
	}
	copied := w.Token
	if _, err := Join(t.Context(), copied, w.Key, named("node2")); err == nil || !strings.HasPrefix(err.Error(), "this host has the key of the node that made the token") {
		t.Errorf("with the host's own key: %v", err)
	}
}

// dialed is a TLS session with a host, under a key.
func dialed(t *testing.T, w *waiting, key ed25519.PrivateKey) *tls.Conn {
	t.Helper()
	session, err := dial(t.Context(), w.Token, key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	_ = session.SetDeadline(time.Now().Add(time.Minute))
	return session
}

// TestWrongProofsGetNoAnswer: not a byte, and the host goes on waiting.
func TestWrongProofsGetNoAnswer(t *testing.T) {
	w := wait(t)
	key, fingerprint := newKey(t)
	_, other := newKey(t)
	wrong := w.Token
	wrong.secret[31] ^= 1
	earlier := dialed(t, w, key)
	proofOf := func(token Token, session *tls.Conn, guest peer.Fingerprint) []byte {
		t.Helper()
		p, err := proof(token, session.ConnectionState(), guest)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, shown := range map[string]func(*tls.Conn) []byte{
		"of another secret":  func(s *tls.Conn) []byte { return proofOf(wrong, s, fingerprint) },
		"of another session": func(*tls.Conn) []byte { return proofOf(w.Token, earlier, fingerprint) },
		"of another key":     func(s *tls.Conn) []byte { return proofOf(w.Token, s, other) },
		"the secret itself":  func(*tls.Conn) []byte { return w.Token.secret[:] },
		"nothing":            func(*tls.Conn) []byte { return nil },
		"zeros and a lot":    func(*tls.Conn) []byte { return make([]byte, 1<<10) },
	} {
		session := dialed(t, w, key)
		if _, err := session.Write(shown(session)); err != nil {
			t.Fatal(err)
		}
		_ = session.CloseWrite()
		if got, err := io.ReadAll(session); len(got) > 0 {
			t.Errorf("%s: answered %q, %v", name, got, err)
		}
	}
	if w.asked.Load() != 0 {
		t.Error("a guest without a proof was admitted")
	}
	if _, err := Join(t.Context(), w.Token, key, named("node2")); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if err := <-w.result; err != nil || w.Unproven() < 6 {
		t.Errorf("counted %d connections without a proof, %v", w.Unproven(), err)
	}
}

// TestHostileRequests cost a connection, and nothing else.
func TestHostileRequests(t *testing.T) {
	w := wait(t)
	key, fingerprint := newKey(t)
	for name, request := range map[string]string{
		"long":      `{"name":"` + strings.Repeat("a", maxMessage) + `"}`,
		"no JSON":   "\x00\xff",
		"a list":    `["node2"]`,
		"no prefix": `{"name":"node2","podCIDRs":["all"]}`,
		"cut":       `{"name":"node2"`,
	} {
		session := dialed(t, w, key)
		p, err := proof(w.Token, session.ConnectionState(), fingerprint)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := session.Write(p); err != nil {
			t.Fatal(err)
		}
		var c Cluster
		if err := json.NewDecoder(session).Decode(&c); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, _ = io.WriteString(session, request) // the host may have closed by then
		_ = session.CloseWrite()
		if got, err := io.ReadAll(session); len(got) > 0 {
			t.Errorf("%s: answered %q, %v", name, got, err)
		}
	}
	if w.asked.Load() != 0 {
		t.Error("a guest was admitted")
	}
	if _, err := Join(t.Context(), w.Token, key, named("node2")); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestSilentConnectionsLeaveRoom: one address can't take all places.
func TestSilentConnectionsLeaveRoom(t *testing.T) {
	w := wait(t)
	for range 3 * maxConnections {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext(t.Context(), "tcp", w.Token.At.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
	key, _ := newKey(t)
	if _, err := Join(t.Context(), w.Token, key, named("node2")); err != nil {
		t.Error(err)
	}
}

func TestHostThatWaitsInVain(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	key, fingerprint := newKey(t)
	h := &Host{Key: key, Token: NewToken(fingerprint, netip.MustParseAddrPort(listener.Addr().String()))}
	silent, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	if r, err := h.Serve(ctx, listener); r != nil || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%+v, %v", r, err)
	}
}

// FuzzParseToken: what is read as a token is written like that.
func FuzzParseToken(f *testing.F) {
	f.Add(NewToken(peer.Fingerprint{1}, netip.MustParseAddrPort("192.0.2.1:9338")).String())
	f.Add(NewToken(peer.Fingerprint{2}, netip.MustParseAddrPort("[fd00:77::1]:1")).String())
	f.Add("weft1.")
	f.Fuzz(func(t *testing.T, text string) {
		if token, err := ParseToken(text); err == nil && token.String() != text {
			t.Errorf("%q is read as %q", text, token)
		}
	})
}

func TestMistakesInTokens(t *testing.T) {
	good := NewToken(peer.Fingerprint{1}, netip.MustParseAddrPort("192.0.2.1:9338")).String()
	for name, text := range map[string]string{
		"empty": "", "a URL": "https://192.0.2.1", "cut": good[:len(good)-1], "cut more": good[:20], "longer": good + "AA", "changed": strings.Replace(good, "A", "*", 1),
		"of another version": "weft2" + good[5:], "a port of 0": NewToken(peer.Fingerprint{1}, netip.MustParseAddrPort("192.0.2.1:0")).String(),
		"mapped": NewToken(peer.Fingerprint{1}, netip.MustParseAddrPort("[::ffff:192.0.2.1]:9338")).String(),
	} {
		token, err := ParseToken(text)
		if err == nil || !strings.Contains(err.Error(), "; copy the whole word that `weft invite` prints") || text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("%s: %+v, %v", name, token, err)
		}
	}
}
