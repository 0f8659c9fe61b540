package main_test

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"
)

func TestTopShowsWhatPasses(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := sealedPods(t)
	sendOn(t, pod1, addrOf(t, pod2, false))
	eventually(t, "weft top to show the pings", func() error {
		shown := weft(t, cluster.Nodes()[0], "top", "-n", "1", "-o", "json")
		var s struct {
			Total struct{ SentPackets, ReceivedBytes float64 }
			Lanes []struct{ SentPackets float64 }
			Peers []struct {
				Name        string
				SentPackets float64
			}
		}
		if err := json.Unmarshal([]byte(shown.stdout), &s); err != nil || shown.status != 0 {
			t.Fatalf("%v: exit status %d, %s%s", err, shown.status, shown.stdout, shown.stderr)
		}
		lanes := 0.0
		for _, l := range s.Lanes {
			lanes += l.SentPackets
		}
		if s.Total.SentPackets == 0 || s.Total.ReceivedBytes == 0 || math.Abs(lanes-s.Total.SentPackets) > 0.01 || len(s.Peers) != 1 || s.Peers[0].Name != "node2" || s.Peers[0].SentPackets == 0 {
			return fmt.Errorf("it shows %s", shown.stdout)
		}
		return nil
	})
}
