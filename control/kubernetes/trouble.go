package kubernetes

import (
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// tellInterval is how often another reason is told of a trouble that goes on.
const tellInterval = 30 * time.Second

// trouble is something that goes on until it is over, and may have one reason after another.
// The zero value is none.
type trouble struct {
	reported string
	at       time.Time
}

// news says whether the reason must be told: it is another one, and the last one was told
// some time ago.
func (t *trouble) news(reason error, now time.Time) bool {
	text := reason.Error()
	if text == t.reported || !t.at.IsZero() && now.Sub(t.at) < tellInterval {
		return false
	}
	t.reported, t.at = text, now
	return true
}

// noList says why the API server gives no list of Nodes.
func (s *Source) noList(err error) error {
	switch {
	case apierrors.IsUnauthorized(err), apierrors.IsForbidden(err):
		return fmt.Errorf("the API server refuses this node: %w", s.withRemedy(err))
	case apierrors.ReasonForError(err) != meta.StatusReasonUnknown:
		return fmt.Errorf("the API server is not ready: %w", err)
	}
	return fmt.Errorf("the API server is unreachable: %w", err)
}

// withRemedy adds what helps to a refusal.
func (s *Source) withRemedy(err error) error {
	switch {
	case apierrors.IsUnauthorized(err) && s.Kubeconfig == "":
		return fmt.Errorf("%w: the token of weftd's pod has expired; delete the pod, so that it gets a new one", err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%w: the token has expired, or its Node was deleted, even if there is one of the same name again; make a new one with: "+
			"kubectl --namespace kube-system create token weft --bound-object-kind Node --bound-object-name %s --duration 8760h; and write it where the kubeconfig %s has the old one: weftd then uses it by itself",
			err, s.Node, s.Kubeconfig)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%w; apply deploy/kubernetes, and name a kubeconfig with a token of weft's service account that is bound to this Node", err)
	}
	return err
}
