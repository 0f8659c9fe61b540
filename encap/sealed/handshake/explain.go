package handshake

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"

	"weft/peer"
)

// keyError says that a node has shown another key than the one that belongs there.
type keyError struct{ shown peer.Fingerprint }

func (e keyError) Error() string { return fmt.Sprintf("the node presents the key %s", e.shown) }

// explained is an error in the words of those who run nodes. The words of QUIC and TLS are
// what it wraps.
type explained struct {
	text string
	error
}

func (e explained) Error() string { return e.text }
func (e explained) Unwrap() error { return e.error }

// The alerts of TLS (RFC 8446 §6) by which crypto/tls refuses what another weft may offer.
const (
	alertHandshakeFailure      = 40
	alertBadCertificate        = 42
	alertIllegalParameter      = 47
	alertProtocolVersion       = 70
	alertInsufficientSecurity  = 71
	alertMissingExtension      = 109
	alertCertificateRequired   = 116
	alertNoApplicationProtocol = 120
)

// explain returns what the failure of a handshake with a peer at an endpoint means, and what
// to do.
func (e *endpoint) explain(node *peer.Peer, to netip.AddrPort, err error) error {
	if text := e.meaning(node.Name, to, err); text != "" {
		return explained{text, err}
	}
	return err
}

func (e *endpoint) meaning(name string, to netip.AddrPort, err error) string {
	if wrong, ok := errors.AsType[keyError](err); ok {
		return fmt.Sprintf("this node's list has another key for %s than the node at %s presents; write key: %s there if that is %s", name, to, wrong.shown, name)
	}
	if transport, ok := errors.AsType[*quic.TransportError](err); ok {
		return e.transportMeaning(name, to, transport)
	}
	if application, ok := errors.AsType[*quic.ApplicationError](err); ok && application.Remote {
		switch application.ErrorCode {
		case codeBusy:
			return fmt.Sprintf("%s has too many handshakes under way; weftd retries", name)
		case codeRefused:
			return fmt.Sprintf("%s aborted the handshake; its log at level debug says why", name)
		case codeGone:
			return fmt.Sprintf("%s was stopped, or its list does not have this node any more", name)
		}
	}
	if isTimeout(err) {
		if refused := e.conn.refusal(to.Addr()); refused != nil {
			return fmt.Sprintf("this host can't send to %s at %s: %v; check its routes and firewall", name, to, refused)
		}
		return fmt.Sprintf("%s does not answer at %s; check that weftd runs there, that its list has this node's endpoint, and that UDP port %d is open both ways", name, to, to.Port())
	}
	return ""
}

func isTimeout(err error) bool {
	var idle *quic.IdleTimeoutError
	var handshake *quic.HandshakeTimeoutError
	return errors.As(err, &idle) || errors.As(err, &handshake) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

// transportMeaning is that of an error of QUIC or TLS.
func (e *endpoint) transportMeaning(name string, to netip.AddrPort, err *quic.TransportError) string {
	if err.ErrorCode == quic.ConnectionRefused && err.Remote {
		return fmt.Sprintf("%s has too many handshakes under way; weftd retries", name)
	}
	if !err.Remote && errors.Is(e.conn.refusal(to.Addr()), unix.EMSGSIZE) {
		return fmt.Sprintf("the link to %s at %s is too narrow for a handshake; raise its MTU to %d at least", name, to, packetSize+packetHeaders(to))
	}
	if !err.ErrorCode.IsCryptoError() {
		return ""
	}
	const firstCryptoError = 0x100
	alert := err.ErrorCode - firstCryptoError
	switch alert {
	case alertBadCertificate, alertCertificateRequired:
		if err.Remote {
			return fmt.Sprintf("%s's list has another key for this node, or none; write key: %s for this node there", name, e.self)
		}
	case alertNoApplicationProtocol:
		return fmt.Sprintf("%s speaks another version of the handshake than this node's (%s); run the same version of weft on both", name, protocol)
	case alertHandshakeFailure, alertIllegalParameter, alertProtocolVersion, alertInsufficientSecurity, alertMissingExtension:
		return fmt.Sprintf("%s and this node have no TLS 1.3 with X25519MLKEM768 in common; run the same version of weft on both", name)
	}
	if err.Remote {
		return fmt.Sprintf("%s refused the handshake with the TLS alert %d; run the same version of weft on both", name, alert)
	}
	return ""
}

// packetHeaders is the length of the IP and UDP headers of a packet to an address.
func packetHeaders(to netip.AddrPort) int {
	const udp = 8
	if to.Addr().Is4() {
		return 20 + udp
	}
	return 40 + udp
}
