package status

import (
	"context"
	"net/http"
)

// Confirmation is what came of a list of nodes that waited.
type Confirmation struct {
	// Withdrawn are the peers that are none any more, Keys those whose changed keys are trusted
	// from now on, and Peers is how many are left.
	Withdrawn []string `json:"withdrawn"`
	Keys      []string `json:"keys"`
	Peers     int      `json:"peers"`
}

// Confirm accepts what the control source says though it looks like a mistake or an attack:
// the removal of many peers, and keys that changed. An error says that nothing waits for that.
type Confirm func(context.Context) (Confirmation, error)

func (f Confirm) serve(w http.ResponseWriter, r *http.Request) {
	confirmation, err := f(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	reply(w, confirmation)
}

// ConfirmList has the daemon behind the socket at path put the list of nodes into force
// that waits for it.
func ConfirmList(ctx context.Context, path string) (Confirmation, error) {
	return ask[Confirmation](ctx, 2*answerLimit, path, http.MethodPost, "/v1/confirm", nil)
}
