package nodekey

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"

	"weft/peer"
)

// Certificate wraps a node's key. There is no authority that certifies keys, so
// nothing in it counts but the key, and clocks do not matter.
func Certificate(key ed25519.PrivateKey) (tls.Certificate, error) {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<36, 0)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a certificate of the node's key: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{certificate}, PrivateKey: key}, nil
}

// TLS returns what both ends of a connection between nodes use. known decides about the other
// end's key.
func TLS(own tls.Certificate, protocols []string, known func(peer.Fingerprint) error) *tls.Config {
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
	fingerprint, err := PeerFingerprint(s)
	if err != nil {
		return err
	}
	return known(fingerprint)
}

// PeerFingerprint returns the fingerprint of the other end's key.
func PeerFingerprint(s tls.ConnectionState) (peer.Fingerprint, error) {
	if len(s.PeerCertificates) == 0 {
		return peer.Fingerprint{}, errors.New("the other node presented no key")
	}
	key, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok {
		return peer.Fingerprint{}, errors.New("the other node's key is not an Ed25519 key")
	}
	return FingerprintOf(key), nil
}
