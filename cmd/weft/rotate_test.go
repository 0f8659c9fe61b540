package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	"weft/internal/status"
)

// answering is a weftd that always comes to the same.
func answering(r status.Rotation, err error) status.Rotate {
	return func(context.Context, []string) (status.Rotation, error) { return r, err }
}

func TestRotationReportsItsOutcome(t *testing.T) {
	for _, tt := range []struct {
		name           string
		rotation       status.Rotation
		err            error
		code           int
		stdout, stderr string
	}{
		{"all", status.Rotation{Peers: []string{"node2", "node3"}, Took: 12345}, nil, 0, "new keys with 2 peers in 12 ms\n", ""},
		{"some", status.Rotation{Peers: []string{"node2"}, Took: 9999999, Error: "no new keys with node3: \x1bwhy\nno new keys with node4: why"}, nil,
			1, "new keys with 1 peer in 9999 ms\n", "weft: no new keys with node3: \ufffdwhy\nno new keys with node4: why\n"},
		{"none", status.Rotation{Error: "no new keys with node2: why"}, nil, 1, "", "weft: no new keys with node2: why\n"},
		{"no peer has keys", status.Rotation{}, nil, 0, "no peer has keys yet; the first packet to a peer starts a handshake\n", ""},
		{"not even tried", status.Rotation{}, errors.New("there are no keys"), 1, "", "weft: there are no keys\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			expectOutcome(t, fakeWeftd(t, healthy(), answering(tt.rotation, tt.err)), []string{"rotate-key"}, tt.code, tt.stdout, tt.stderr)
		})
	}
}

func TestFailedRotationIsAJSONDocument(t *testing.T) {
	socket := fakeWeftd(t, healthy(), answering(status.Rotation{Peers: []string{"node2"}, Took: 12345, Error: "no new keys with node3: why"}, nil))
	expectOutcome(t, socket, []string{"rotate-key", "-o", "json"}, 1, `
{
  "peers": [
    "node2"
  ],
  "tookMicroseconds": 12345,
  "error": "no new keys with node3: why"
}
`, "weft: no new keys with node3: why\n")
}

func TestRotationIsForTheNamedPeers(t *testing.T) {
	socket := fakeWeftd(t, healthy(), func(_ context.Context, names []string) (status.Rotation, error) {
		return status.Rotation{}, errors.New("asked for " + strings.Join(names, " and "))
	})
	expectOutcome(t, socket, []string{"rotate-key", "node3", "node2"}, 1, "", "weft: asked for node3 and node2\n")
}
