package cniplugin

import (
	"testing"
)

// TestAPodIsReadyForPacketsWhenItsADDReturns: what is sent to a pod too early is lost, and
// a TCP connection begun with it takes a second.
func TestAPodIsReadyForPacketsWhenItsADDReturns(t *testing.T) {
	n := newNode(t, families["dual stack"]...)
	pod := newNamespace(t)
	args := n.args("pod", pod.Path())
	unready := map[string]int{}
	const rounds = 50
	for range rounds {
		if err := n.call(n.plugin.Add, args); err != nil {
			t.Fatal(err)
		}
		if what := n.lacking(n.leases()[0], pod); what != "" {
			unready[what]++
		}
		if err := n.call(n.plugin.Del, args); err != nil {
			t.Fatal(err)
		}
	}
	for what, times := range unready {
		t.Errorf("%d of %d times, %s", times, rounds, what)
	}
}
