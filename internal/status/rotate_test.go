package status_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/internal/status"
)

func TestARotationArrivesAsItWasMade(t *testing.T) {
	want := status.Rotation{Peers: []string{"node2"}, Took: 12, Error: "no new keys with node3: why"}
	for _, names := range [][]string{nil, {"node2", "node3"}} {
		var asked []string
		path := serve(t, status.Handler(status.Daemon{Rotate: func(ctx context.Context, names []string) (status.Rotation, error) {
			if end, ok := ctx.Deadline(); !ok || time.Until(end) > 10*time.Second {
				t.Errorf("it may take until %v", end)
			}
			asked = names
			return want, nil
		}}))
		got, err := status.RotateKeys(t.Context(), path, names)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v, (-want +got):\n%s", err, diff)
		}
		if diff := cmp.Diff(names, asked); diff != "" {
			t.Errorf("asked for (-want +got):\n%s", diff)
		}
	}
}

func TestARotationThatIsRefusedSaysWhy(t *testing.T) {
	refused := serve(t, status.Handler(status.Daemon{Rotate: func(context.Context, []string) (status.Rotation, error) {
		return status.Rotation{}, errors.New("there are no keys\nat all")
	}}))
	old := serve(t, http.NotFoundHandler())
	for path, want := range map[string]string{
		refused: "there are no keys\nat all",
		old:     "the weftd at " + old + " answers 404 Not Found; is it of another version than weft?",
	} {
		if _, err := status.RotateKeys(t.Context(), path, nil); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}
