package handshake

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"weft/encap/sealed"
	"weft/internal/nodekey"
	"weft/peer"
)

// protocol is negotiated with every connection (RFC 7301); the number grows with every
// change that an older weft would misunderstand.
const protocol = "weft/2"

// proofProtocol is negotiated in its place where the dialer only proves an address of the other
// node's. An older node, which drops what is for the address, refuses it.
const proofProtocol = "weft-proof/1"

// exporterLabel is what data keys are made with out of a TLS session (RFC 8446 §7.5).
const exporterLabel = "EXPORTER weft sealed 2"

// newCertificate wraps the node's key. There is no authority that certifies keys, so
// nothing in it counts but the key, and clocks do not matter.
func newCertificate(key ed25519.PrivateKey) (tls.Certificate, error) {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<36, 0)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a certificate of the node's key: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{certificate}, PrivateKey: key}, nil
}

// tlsConfig returns what both ends of a connection use. known decides about the other
// end's key.
func tlsConfig(own tls.Certificate, protocols []string, known func(peer.Fingerprint) error) *tls.Config {
	return &tls.Config{
		Certificates:           []tls.Certificate{own},
		NextProtos:             protocols,
		MinVersion:             tls.VersionTLS13,
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // by names and authorities: VerifyConnection does it by key
		VerifyConnection:       func(s tls.ConnectionState) error { return verify(s, known) },
		SessionTicketsDisabled: true,
	}
}

func verify(s tls.ConnectionState, known func(peer.Fingerprint) error) error {
	if s.Version != tls.VersionTLS13 || s.CurveID != tls.X25519MLKEM768 {
		return fmt.Errorf("agreed on %s with %s, where TLS 1.3 with X25519MLKEM768 is required", tls.VersionName(s.Version), s.CurveID)
	}
	fingerprint, err := peerFingerprint(s)
	if err != nil {
		return err
	}
	return known(fingerprint)
}

func peerFingerprint(s tls.ConnectionState) (peer.Fingerprint, error) {
	if len(s.PeerCertificates) == 0 {
		return peer.Fingerprint{}, errors.New("the other node presented no key")
	}
	key, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok {
		return peer.Fingerprint{}, errors.New("the other node's key is not an Ed25519 key")
	}
	return nodekey.FingerprintOf(key), nil
}

// export returns what the data keys of a connection's epoch are made of. The context says
// which end sends with them, and which keys both ends have: the session's own secret does not
// depend on the dialer's certificate (RFC 8446 §7.1).
func export(s tls.ConnectionState, self, peer peer.Fingerprint, dialed bool) (*sealed.Secrets, error) {
	var secrets sealed.Secrets
	dialer, acceptor := peer, self
	fromDialer, fromAcceptor := secrets.Receive[:], secrets.Send[:]
	if dialed {
		dialer, acceptor = self, peer
		fromDialer, fromAcceptor = secrets.Send[:], secrets.Receive[:]
	}
	for end, secret := range map[string][]byte{"dialer": fromDialer, "acceptor": fromAcceptor} {
		context := slices.Concat([]byte(end), dialer[:], acceptor[:])
		material, err := s.ExportKeyingMaterial(exporterLabel, context, len(secret))
		if err != nil {
			return nil, fmt.Errorf("export data keys: %w", err)
		}
		copy(secret, material)
		clear(material)
	}
	return &secrets, nil
}
