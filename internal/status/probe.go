package status

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"time"
)

// Probe is what probing the path to a peer has shown.
type Probe struct {
	Peer     string         `json:"peer"`
	Endpoint netip.AddrPort `json:"endpoint"`

	// Sent probes, from all lanes, and how many of them the peer has answered.
	Sent     int `json:"sent"`
	Answered int `json:"answered"`

	// Round-trip times of those.
	Min     int64 `json:"minRTTMicroseconds,omitempty"`
	Average int64 `json:"averageRTTMicroseconds,omitempty"`
	Max     int64 `json:"maxRTTMicroseconds,omitempty"`

	// MTU is the size of the largest packets of pods that arrive, and Largest that of the largest
	// that pods send, both in bytes; 0 if they are not known.
	MTU     int `json:"mtu,omitempty"`
	Largest int `json:"largestMTU,omitempty"`

	// Error is why the peer can't be reached; empty if it can.
	Error string `json:"error,omitempty"`
}

// MaxProbeRounds is how many rounds one request may ask for.
const MaxProbeRounds = 100

// ProbePeer probes the path to the named peer in so many rounds. An error is a reason not even to
// try.
type ProbePeer func(ctx context.Context, name string, rounds int) (Probe, error)

// probeRequest is the body of POST /v1/probe.
type probeRequest struct {
	Peer   string `json:"peer"`
	Rounds int    `json:"rounds"`
}

// within is how long a probe may take: to agree on keys, the rounds, and the search for the MTU.
func (r probeRequest) within() time.Duration {
	return 30*time.Second + time.Duration(r.Rounds)*3*time.Second
}

func (f ProbePeer) serve(w http.ResponseWriter, r *http.Request) {
	const mostBytes = 4 << 10
	var asked probeRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, mostBytes)).Decode(&asked); err != nil || asked.Rounds < 1 || asked.Rounds > MaxProbeRounds {
		http.Error(w, fmt.Sprintf("read what to probe: want a peer, and 1 to %d rounds", MaxProbeRounds), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), asked.within())
	defer cancel()
	probe, err := f(ctx, asked.Peer, asked.Rounds)
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	reply(w, probe)
}

// AskProbe asks the daemon behind the socket at path to probe the way to a peer.
func AskProbe(ctx context.Context, path, peer string, rounds int) (Probe, error) {
	asked := probeRequest{peer, rounds}
	body, err := json.Marshal(asked)
	if err != nil {
		return Probe{}, fmt.Errorf("ask weftd: %w", err)
	}
	return ask[Probe](ctx, asked.within()+answerLimit, path, http.MethodPost, "/v1/probe", bytes.NewReader(body))
}
