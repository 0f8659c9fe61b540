package status

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"weft/internal/explain"
)

// Explanation is what becomes of a packet on this node, and on the peer that it is sent to or comes
// from.
type Explanation struct {
	explain.Answer

	// Example says that no source was asked for, so that weftd chose one.
	Example bool `json:"example,omitempty"`

	// PeerSide is what the peer says of the packet; nil if it was not asked, or PeerError is why it
	// gave no answer. A peer may say anything.
	PeerSide  *explain.Answer `json:"peerSide,omitempty"`
	PeerError string          `json:"peerError,omitempty"`

	// Overall is the verdict of both.
	Overall explain.Verdict `json:"overall"`
}

// Conclude makes Overall the verdict of the node at which the packet ends. What a peer says of it stands
// there as the peer's words, and without advice: operators do as weft advises.
func (e *Explanation) Conclude() {
	e.Overall = e.Verdict
	switch {
	case e.PeerSide == nil,
		e.Inbound && e.PeerSide.Verdict.Delivered, // to this node
		!e.Inbound && !e.Verdict.Delivered:        // the peer never sees it
		return
	}
	e.Overall = explain.Verdict{Delivered: e.PeerSide.Verdict.Delivered, Text: e.Peer + " says: " + e.PeerSide.Verdict.Text}
	if !e.Overall.Delivered {
		e.Overall.Remedy = "`weft status` and `weft explain` on " + e.Peer + " have the remedy"
	}
}

// Explain says what becomes of a packet. Without a valid source, it chooses one of this node.
type Explain func(context.Context, explain.Query) (Explanation, error)

func (f Explain) serve(w http.ResponseWriter, r *http.Request) {
	const mostBytes = 4 << 10
	var q explain.Query
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, mostBytes))
	if err := decoder.Decode(&q); err != nil || !q.Destination.IsValid() || q.Protocol != "tcp" && q.Protocol != "udp" {
		http.Error(w, "read what to explain: want a destination, a protocol (tcp or udp) and a port", http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), explainLimit)
	defer cancel()
	answer, err := f(ctx, q)
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	reply(w, answer)
}

// explainLimit is how long weftd may take to read all filters of the host.
const explainLimit = 20 * time.Second

// AskExplain asks the daemon behind the socket at path what becomes of a packet.
func AskExplain(ctx context.Context, path string, q explain.Query) (Explanation, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return Explanation{}, fmt.Errorf("ask weftd: %w", err)
	}
	return ask[Explanation](ctx, explainLimit+answerLimit, path, http.MethodPost, "/v1/explain", bytes.NewReader(body))
}
