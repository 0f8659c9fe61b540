package handshake

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"net"
	"testing"

	"weft/encap/sealed"
	"weft/internal/nodekey"
	"weft/peer"
)

// Both ends make the same data keys, and others as soon as one of them takes either end's key
// for another.
func TestDataKeysBindBothNodes(t *testing.T) {
	dialer, acceptor := peer.Fingerprint{1}, peer.Fingerprint{2}
	atDialer, atAcceptor := session(t)
	export := func(s tls.ConnectionState, self, peer peer.Fingerprint, dialed bool) sealed.Secrets {
		t.Helper()
		secrets, err := export(s, self, peer, dialed)
		if err != nil {
			t.Fatal(err)
		}
		return *secrets
	}
	dials, accepts := export(atDialer, dialer, acceptor, true), export(atAcceptor, acceptor, dialer, false)
	if dials.Send != accepts.Receive || dials.Receive != accepts.Send || dials.Send == dials.Receive {
		t.Fatal("the ends have no keys in common, or the same for both directions")
	}
	for name, other := range map[string]sealed.Secrets{
		"the acceptor takes the dialer for another": export(atAcceptor, acceptor, peer.Fingerprint{3}, false),
		"the acceptor has another key":              export(atAcceptor, peer.Fingerprint{3}, dialer, false),
		"both take themselves for the dialer":       export(atAcceptor, acceptor, dialer, true),
	} {
		if other.Receive == dials.Send || other.Send == dials.Receive {
			t.Errorf("%s: a key is the same", name)
		}
	}
}

// session returns both ends of a TLS session.
func session(t *testing.T) (dialer, acceptor tls.ConnectionState) {
	t.Helper()
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	certificate, err := nodekey.Certificate(key)
	if err != nil {
		t.Fatal(err)
	}
	anyone := func(peer.Fingerprint) error { return nil }
	left, right := net.Pipe()
	config := nodekey.TLS(certificate, []string{protocol}, anyone)
	client, server := tls.Client(left, config), tls.Server(right, config)
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return client.ConnectionState(), server.ConnectionState()
}
