package handshake

import (
	"crypto/tls"
	"fmt"
	"slices"

	"weft/encap/sealed"
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
