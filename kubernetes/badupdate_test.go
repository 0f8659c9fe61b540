package kubernetes

import (
	"slices"
	"testing"
)

// badUpdate: the new pod takes over and does not get ready, so the old one stays, and the other node as it
// was. Going back loses nothing either.
func (in *installed) badUpdate(t *testing.T) {
	web1, web2 := in.webPods(t)
	before := in.podNames(t)
	stop := in.pings(t, web1, web2)
	in.kubectl(t, "--namespace", weftNamespace, "patch", "daemonset", "weft", "--patch",
		`{"spec": {"template": {"spec": {"containers": [{"name": "weftd", "readinessProbe": {"exec": {"command": ["/bad"]}}}]}}}}`)
	// Long enough for the probes of the old pod to count.
	if out, err := in.Kubectl(t.Context(), "--namespace", weftNamespace, "rollout", "status", "daemonset/weft", "--timeout=30s"); err == nil {
		t.Errorf("the update is complete: %s", out)
	}
	after := in.podNames(t)
	if len(after) != len(before)+1 {
		t.Errorf("weft's pods were %v, and are %v\n%s", before, after, in.Describe(t.Context()))
	}
	for _, name := range before {
		if !slices.Contains(after, name) {
			t.Errorf("%s is gone", name)
		}
	}
	in.kubectl(t, "--namespace", weftNamespace, "rollout", "undo", "daemonset/weft")
	in.kubectl(t, "--namespace", weftNamespace, "rollout", "status", "daemonset/weft", "--timeout=3m")
	sent, lost := stop()
	t.Logf("%d of %d pings lost", lost, sent)
}

// podNames returns those of weft's pods that are not being deleted.
func (in *installed) podNames(t *testing.T) (names []string) {
	t.Helper()
	for _, n := range in.Kubernetes.Nodes {
		pods, err := in.WeftPods(t.Context(), n)
		check(t, err)
		for _, pod := range pods {
			names = append(names, pod.Name)
		}
	}
	return names
}
