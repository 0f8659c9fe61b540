package kubernetes

import (
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// tellInterval is how often another reason is told of a trouble that goes on.
const tellInterval = 30 * time.Second

// trouble is something that goes on until it is over, and may have one reason after another.
// The zero value is none.
type trouble struct {
	told string
	at   time.Time
}

// news says whether the reason must be told: it is another one, and the last one was told
// some time ago.
func (t *trouble) news(reason error, now time.Time) bool {
	text := reason.Error()
	if text == t.told || !t.at.IsZero() && now.Sub(t.at) < tellInterval {
		return false
	}
	t.told, t.at = text, now
	return true
}

// noList says why the API server gives no list of Nodes.
func noList(err error) error {
	if apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err) {
		return fmt.Errorf("the API server refuses this node: %w", withRemedy(err))
	}
	return fmt.Errorf("the API server is away: %w", err)
}

// withRemedy adds what helps to a refusal of the token, which is but one word.
func withRemedy(err error) error {
	if apierrors.IsUnauthorized(err) {
		return fmt.Errorf("%w: the token has ended, or belongs to a Node that was deleted; make a new one (deploy/kubernetes/rbac.yaml says how)", err)
	}
	return err
}
