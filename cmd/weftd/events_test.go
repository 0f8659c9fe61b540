package main_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"weft/internal/events"
	"weft/internal/testnet"
)

// eventuallyHappened waits until a node's journal has an event of a kind, about a subject.
func eventuallyHappened(t *testing.T, node *testnet.Node, code, subject string) (found events.Event) {
	t.Helper()
	eventually(t, "the event "+code+" of "+subject, func() error {
		shown := weft(t, node, "events", "-o", "json")
		var page events.Page
		if err := json.Unmarshal([]byte(shown.stdout), &page); err != nil || shown.status != 0 {
			t.Fatalf("%v: weft events: exit status %d, %s%s", err, shown.status, shown.stdout, shown.stderr)
		}
		for _, e := range page.Events {
			if e.Code == code && e.Subject == subject {
				found = e
				return nil
			}
		}
		return fmt.Errorf("there are %s", shown.stdout)
	})
	return found
}

func TestEventsSayWhatHasChanged(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := sealedPods(t)
	node := cluster.Nodes()[0]
	eventuallyHappened(t, node, "weftd_started", "")
	expectPings(t, pod1, pod2)
	eventuallyHappened(t, node, "data_keys_agreed", "node2")

	run(t, node.Namespace, "ip", "route", "flush", "table", "all", "proto", "93")
	eventuallyHappened(t, node, "host_network_changed", "")

	cluster.Nodes()[1].Kill()
	sendOn(t, pod1, addrOf(t, pod2, false))
	if e := eventuallyHappened(t, node, "peer_unreachable", "node2"); !strings.Contains(e.Text, "node2") || e.Level != "WARN" {
		t.Errorf("%+v", e)
	}
	if text := weft(t, node, "events").stdout; !strings.Contains(text, "  peer unreachable ") {
		t.Errorf("weft events prints\n%s", text)
	}
	if err := cluster.Nodes()[1].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventuallyHappened(t, node, "peer_reachable_again", "node2")

	if _, err := cluster.AddNode(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Publish(); err != nil {
		t.Fatal(err)
	}
	eventuallyHappened(t, node, "peer_added", "node3")
}
