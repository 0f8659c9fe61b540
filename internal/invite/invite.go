package invite

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"weft/internal/strict/yamltree"
	"weft/peer"
)

const (
	// protocol is negotiated by ALPN; the number grows with every change that an older weft would
	// misunderstand.
	protocol = "weft-join/1"

	exporterLabel = "EXPORTER weft join 1"

	// unprovenLimit is how long a connection may take until its proof has arrived, provenLimit how long
	// the rest may take.
	unprovenLimit = 10 * time.Second
	provenLimit   = time.Minute

	// maxMessage is how long a JSON message may be, in bytes, but for the list of nodes.
	maxMessage = 16 << 10

	// maxAnswer has room for the largest list that weftd reads, as JSON escapes it.
	maxAnswer = 2 * yamltree.MaxSize
)

// Cluster is what a guest must know before it can say where it is reached.
type Cluster struct {
	// Node is the host's name.
	Node string `json:"node"`

	ClusterCIDRs []netip.Prefix `json:"clusterCIDRs"`

	// EchoPort must be the same on all nodes, like the cluster CIDRs.
	EchoPort uint16 `json:"echoPort"`
}

// Request is what a guest says of itself. Whoever has the token may write anything here.
type Request struct {
	Name     string         `json:"name"`
	Endpoint netip.AddrPort `json:"endpoint"`

	// PodCIDRs are those that the guest wants; none if the host may choose.
	PodCIDRs []netip.Prefix `json:"podCIDRs,omitempty"`

	// Key is the one that the guest has shown. It is not sent.
	Key peer.Fingerprint `json:"-"`
}

// answer is what the host makes of a request.
type answer struct {
	List    []byte `json:"list,omitempty"`
	Refused string `json:"refused,omitempty"`
}

// proof returns what only a holder of the token can know, and only in this session between these keys.
func proof(t Token, s tls.ConnectionState, guest peer.Fingerprint) ([]byte, error) {
	exported, err := s.ExportKeyingMaterial(exporterLabel, slices.Concat(t.Host[:], guest[:]), sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("export what the proof is made of: %w", err)
	}
	mac := hmac.New(sha256.New, t.secret[:])
	mac.Write(exported)
	return mac.Sum(nil), nil
}

// The ends take turns, so no message is behind another one that could be read with it.

func write(to io.Writer, message any) error { return json.NewEncoder(to).Encode(message) }

// read reads a message of at most so many bytes.
func read(from io.Reader, message any, most int64) error {
	return json.NewDecoder(io.LimitReader(from, most)).Decode(message)
}
