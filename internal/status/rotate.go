package status

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Rotation is what came of asking for new data keys.
type Rotation struct {
	// Peers are those that use new keys with this node. Took is how long it all took, with
	// the failures.
	Peers []string `json:"peers"`
	Took  int64    `json:"tookMicroseconds"`

	// Error names the peers with whom no new keys could be agreed on, a line each, and
	// says why; empty if there are none.
	Error string `json:"error,omitempty"`
}

// Rotate agrees on new data keys with the named peers, or with all that have keys if no
// names are given, and returns when they are in use, or ctx is done. An error is a reason
// not even to try.
type Rotate func(ctx context.Context, names []string) (Rotation, error)

// rotateLimit is how long new keys may take.
const rotateLimit = 10 * time.Second

// rotateRequest is the body of POST /v1/rotate-key.
type rotateRequest struct {
	Peers []string `json:"peers"`
}

func (f Rotate) serve(w http.ResponseWriter, r *http.Request) {
	const mostBytes = 1 << 20
	var asked rotateRequest
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, mostBytes))
	decoder.DisallowUnknownFields() // a misspelt one would mean all peers
	if err := decoder.Decode(&asked); err != nil {
		http.Error(w, fmt.Sprintf("read the names of the peers: %v", err), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), rotateLimit)
	defer cancel()
	rotation, err := f(ctx, asked.Peers)
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	reply(w, rotation)
}

// refusal is why the daemon does not even try.
func refusal(body io.Reader) error {
	const mostBytes = 64 << 10
	text, err := io.ReadAll(io.LimitReader(body, mostBytes))
	if err != nil {
		return fmt.Errorf("read weftd's answer: %w", err)
	}
	return errors.New(strings.TrimSpace(string(text)))
}

// RotateKeys asks the daemon behind the socket at path for new data keys with the named
// peers, or with all that have keys if no names are given.
func RotateKeys(ctx context.Context, path string, names []string) (Rotation, error) {
	body, err := json.Marshal(rotateRequest{names})
	if err != nil {
		return Rotation{}, fmt.Errorf("ask weftd: %w", err)
	}
	return ask[Rotation](ctx, rotateLimit+answerLimit, path, http.MethodPost, "/v1/rotate-key", bytes.NewReader(body))
}
