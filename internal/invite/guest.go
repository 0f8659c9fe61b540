package invite

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"weft/internal/nodekey"
	"weft/internal/strict"
	"weft/peer"
)

// Join has the host of a token make this host, which has a key, a node. Describe says what this host
// asks for, once it knows the cluster. Join returns the list of nodes.
func Join(ctx context.Context, t Token, key ed25519.PrivateKey, describe func(Cluster) (Request, error)) (list []byte, err error) {
	self := nodekey.FingerprintOf(key.Public().(ed25519.PublicKey))
	if self == t.Host {
		return nil, errors.New("this host has the key of the node that made the token; each node needs its own: remove this one's, and join again")
	}
	ctx, cancel := context.WithTimeout(ctx, unprovenLimit+provenLimit)
	defer cancel()
	session, err := dial(ctx, t, key)
	if err != nil {
		return nil, err
	}
	defer session.Close()
	stop := context.AfterFunc(ctx, func() { _ = session.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	shown, err := proof(t, session.ConnectionState(), self)
	if err != nil {
		return nil, err
	}
	if _, err := session.Write(shown); err != nil {
		return nil, fmt.Errorf("show the token to %s: %w", t.At, err)
	}
	var c Cluster
	if err := read(session, &c, maxMessage); err != nil {
		return nil, fmt.Errorf("the node at %s does not accept the token (%w); it is for one node, and for a time only: run `weft invite` there again", t.At, err)
	}
	if err := strict.CheckNodeName(c.Node); err != nil {
		return nil, fmt.Errorf("what %s says of itself: %w", t.At, err)
	}
	r, err := describe(c)
	if err != nil {
		return nil, err
	}
	if err := write(session, r); err != nil {
		return nil, fmt.Errorf("ask node %s: %w", c.Node, err)
	}
	var a answer
	if err := read(session, &a, maxAnswer); err != nil {
		return nil, fmt.Errorf("read the answer of node %s: %w; look there whether this node is in the list, and join again with another token", c.Node, err)
	}
	if a.Refused != "" {
		return nil, fmt.Errorf("node %s refuses this one: %s", c.Node, a.Refused)
	}
	return a.List, nil
}

// dial connects to the host, which must have the key that the token names.
func dial(ctx context.Context, t Token, key ed25519.PrivateKey) (*tls.Conn, error) {
	certificate, err := nodekey.Certificate(key)
	if err != nil {
		return nil, err
	}
	config := nodekey.TLS(certificate, []string{protocol}, func(shown peer.Fingerprint) error {
		if shown != t.Host {
			return fmt.Errorf("it has the key %s, and not %s as the token says; another host answers there", shown, t.Host)
		}
		return nil
	})
	dialer := net.Dialer{Timeout: unprovenLimit}
	conn, err := dialer.DialContext(ctx, "tcp", t.At.String())
	if err != nil {
		return nil, fmt.Errorf("reach the node that made the token: %w; `weft invite` must run there, and TCP port %d must be open", err, t.At.Port())
	}
	session := tls.Client(conn, config)
	handshake, cancel := context.WithTimeout(ctx, unprovenLimit)
	defer cancel()
	if err := session.HandshakeContext(handshake); err != nil {
		conn.Close()
		return nil, fmt.Errorf("agree on keys with the node at %s: %w", t.At, err)
	}
	return session, nil
}
