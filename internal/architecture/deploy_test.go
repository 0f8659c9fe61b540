package architecture

import (
	"net/netip"
	"testing"

	"weft/control"
	"weft/control/file"
)

func TestTheShippedListOfNodesMakesAPlan(t *testing.T) {
	state, err := file.New("../../deploy/nodes.yaml").Load()
	if err != nil {
		t.Fatal(err)
	}
	cluster := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/48")} // of deploy/weft.yaml
	if _, err := control.NewPlan(state, control.Options{Node: "node1", ClusterCIDRs: cluster}); err != nil {
		t.Error(err)
	}
}
