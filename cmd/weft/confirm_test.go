package main

import (
	"context"
	"errors"
	"testing"

	"weft/internal/status"
)

func TestConfirmReportsWithdrawnNodes(t *testing.T) {
	for _, tt := range []struct {
		name           string
		done           status.Confirmation
		err            error
		args           []string
		code           int
		stdout, stderr string
	}{
		{"several", status.Confirmation{Withdrawn: []string{"node2", "node3"}, Peers: 1}, nil, nil, 0, "2 peers removed, 1 left\n", ""},
		{"keys", status.Confirmation{Keys: []string{"node2", "node3"}, Peers: 4}, nil, nil, 0, "2 changed keys accepted: node2, node3\n0 peers removed, 4 left\n", ""},
		{"for programs", status.Confirmation{Withdrawn: []string{"node2"}, Keys: []string{"node3"}}, nil, []string{"-o", "json"}, 0, `
{
  "withdrawn": [
    "node2"
  ],
  "keys": [
    "node3"
  ],
  "peers": 0
}
`, ""},
		{"nothing waits", status.Confirmation{}, errors.New("nothing to confirm: no peers are kept, and no key has changed"), nil, 1, "", "weft: nothing to confirm: no peers are kept, and no key has changed\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			socket := serveWeftd(t, status.Daemon{Confirm: func(context.Context) (status.Confirmation, error) { return tt.done, tt.err }})
			expectOutcome(t, socket, append([]string{"confirm"}, tt.args...), tt.code, tt.stdout, tt.stderr)
		})
	}
}
