package main_test

import (
	"errors"
	"strings"
	"testing"
)

// A more specific route of another program takes packets from the overlay, and weftd leaves it
// alone: weft routes names it.
func TestRoutesNamesAForeignRoute(t *testing.T) {
	t.Parallel()
	cluster, _, _ := sealedPods(t)
	node := cluster.Nodes()[0]
	shown := weft(t, node, "routes")
	for _, want := range []string{"10.244.2.0/24", "192.168.77.2/32", "fd00:244:2::/64", "node1 (this node)"} {
		if shown.status != 0 || !strings.Contains(shown.stdout, want) || strings.Contains(shown.stdout, "PROBLEM") {
			t.Errorf("no %q, or a problem: exit status %d\n%s%s", want, shown.status, shown.stdout, shown.stderr)
		}
	}
	run(t, node.Namespace, "ip", "route", "add", "10.244.2.128/25", "via", "192.168.77.254")
	eventually(t, "weft routes to name the route", func() error {
		shown := weft(t, node, "routes", "10.244.2.130")
		if !strings.HasPrefix(shown.stdout, "PROBLEM  10.244.2.128/25 (node2): another program's route takes packets to 10.244.2.128/25 from the overlay: 10.244.2.128/25 via 192.168.77.254 dev eth0 table main; ") ||
			!strings.Contains(shown.stdout, "\n10.244.2.0/24 ") || strings.Contains(shown.stdout, "10.244.1.0/24") {
			return errors.New(shown.stdout + shown.stderr)
		}
		return nil
	})
}
