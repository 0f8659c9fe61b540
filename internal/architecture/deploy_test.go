package architecture

import (
	"testing"

	"github.com/spf13/pflag"

	"weft/control"
	"weft/control/file"
	"weft/internal/config"
	"weft/peer"
)

// expectPlan checks that two files are right together, for the first node of the list.
func expectPlan(t *testing.T, weft, nodes string) {
	t.Helper()
	state, err := file.New(nodes).Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	self := state.Nodes[0]
	flags := pflag.NewFlagSet("weftd", pflag.ContinueOnError)
	config.AddFlags(flags)
	if err := flags.Parse([]string{"--config", weft, "--node", self.Name}); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(flags, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Encapsulation != config.EncapsulationSealed || self.Key == (peer.Fingerprint{}) {
		t.Errorf("encapsulation %s, key %s", c.Encapsulation, self.Key)
	}
	if _, err := control.NewPlan(state, control.Options{Node: c.Node, ClusterCIDRs: c.ClusterCIDRs, Key: self.Key}); err != nil {
		t.Error(err)
	}
}

func TestTheShippedFilesMakeAPlan(t *testing.T) {
	expectPlan(t, "../../deploy/weft.yaml", "../../deploy/nodes.yaml")
}
