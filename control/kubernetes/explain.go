package kubernetes

import (
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

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
			"kubectl --namespace weft create token weft --bound-object-kind Node --bound-object-name %s --duration 8760h; and write it where the kubeconfig %s has the old one: weftd then uses it by itself",
			err, s.Node, s.Kubeconfig)
	case apierrors.IsForbidden(err) && s.Kubeconfig == "":
		return fmt.Errorf("%w; apply the manifest of this version again", err)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%w; apply deploy/kubernetes/rights, and name a kubeconfig with a token of weft's service account that is bound to this Node", err)
	}
	return err
}
