// Package invite lets one new node join a cluster whose nodes don't know its key yet. A node of the
// cluster, the host, makes a token and waits; the new node, the guest, has the token from an operator and
// connects. The package moves no files and knows nothing of lists of nodes beyond their bytes.
//
// # Protocol
//
// Both ends speak TLS 1.3 over TCP and show their node keys. The token has the fingerprint of the host's
// key, so the guest speaks to no other. It also has a secret of 256 bits, which the guest proves without
// sending it:
//
//	guest  HMAC-SHA256(secret, exporter), 32 bytes: the exporter (RFC 8446 §7.5) is bound to the
//	       session, and its context to both keys
//	host   Cluster, as JSON
//	guest  Request, as JSON
//	host   answer, as JSON: the list of nodes, or why the guest is refused
//
// The host answers nothing before it has verified the proof. It serves one guest: the first one whose
// request it admits.
package invite

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"weft/internal/strict"
	"weft/peer"
)

// Token is what an operator takes from the host to the guest. It is a secret.
type Token struct {
	// Host is the fingerprint of the host's key.
	Host peer.Fingerprint

	// At is where the host waits.
	At netip.AddrPort

	secret [32]byte
}

// tokenPrefix distinguishes tokens from other texts, and their versions.
const tokenPrefix = "weft1."

// NewToken makes a token of a host that waits at an address.
func NewToken(host peer.Fingerprint, at netip.AddrPort) Token {
	t := Token{Host: host, At: at}
	_, _ = rand.Read(t.secret[:]) // never fails
	return t
}

// String returns the token, secret included, as one word.
func (t Token) String() string {
	text := append([]byte{}, t.Host[:]...)
	text = append(text, t.secret[:]...)
	text = binary.BigEndian.AppendUint16(text, t.At.Port())
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(text, t.At.Addr().AsSlice()...))
}

// ParseToken is the inverse of String. Its errors do not show the text.
func ParseToken(text string) (Token, error) {
	encoded, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok {
		return Token{}, fmt.Errorf("this is no token; copy the whole word that `weft invite` prints, from %s on", tokenPrefix)
	}
	incomplete := errors.New("the token is incomplete or was changed; copy the whole word that `weft invite` prints")
	data, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	var t Token
	head := len(t.Host) + len(t.secret) + 2
	if err != nil || len(data) < head {
		return Token{}, incomplete
	}
	copy(t.Host[:], data)
	copy(t.secret[:], data[len(t.Host):])
	addr, ok := netip.AddrFromSlice(data[head:])
	t.At = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(data[head-2:]))
	// A token has one form: base64 leaves out line breaks, for example.
	if !ok || strict.CheckAddrPort(t.At) != nil || t.String() != text {
		return Token{}, incomplete
	}
	return t, nil
}
