package status

import (
	"context"
	"net/http"
)

// Confirmation is what came of a list of nodes that waited.
type Confirmation struct {
	// Withdrawn are the peers that are none any more, and Peers is how many are left.
	Withdrawn []string `json:"withdrawn"`
	Peers     int      `json:"peers"`
}

// Confirm lets go of the peers that are kept though the control source lists them no more,
// because they are so many. An error says that there are none.
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
