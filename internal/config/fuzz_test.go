package config

import (
	"os"
	"testing"

	"weft/internal/strict"
	"weft/internal/strict/yamltree"
)

// FuzzConfig: a file is either refused with a problem, or gives a configuration that keeps
// the promises of Config.
func FuzzConfig(f *testing.F) {
	data, err := os.ReadFile("../../deploy/weft.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(minimal + "encapsulation: vxlan\n"))
	f.Add([]byte("tun: &a {mtu: 1, mtu: 2}\nvxlan: *a\n---\n? [x]\n: !!binary eA==\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var problems strict.Problems
		root := yamltree.Parse("weft.yaml", data, &problems)
		c := resolve("weft.yaml", root, false, map[string]setting{"node": settingOfText("--node", "node1", key{})}, &problems)
		if problems.Err() != nil {
			return
		}
		if len(c.ClusterCIDRs) == 0 || c.Encapsulation != EncapsulationSealed && c.Encapsulation != EncapsulationVXLAN || c.KeyFile == "" || !c.Listen.IsValid() || c.Control.File == "" ||
			c.TUN.Name == "" || c.TUN.Driver == "" || c.Lanes() < 1 || c.StateDir == "" || c.RunDir == "" || c.CNI.ConfDir == "" || c.CNI.BinDir == "" || c.CNI.Name == "" {
			t.Errorf("accepted, but incomplete: %+v", c)
		}
		if c.TUN.Lanes > 16 || c.TUN.MTU != 0 && (c.TUN.MTU < 1280 || c.TUN.MTU > 65000) || c.VXLAN.VNI >= 1<<24 {
			t.Errorf("accepted, but out of range: %+v", c)
		}
		for i, p := range c.ClusterCIDRs {
			if p != p.Masked() || p.Addr().Is4In6() {
				t.Errorf("accepted the cluster CIDR %s", p)
			}
			for _, other := range c.ClusterCIDRs[:i] {
				if p.Overlaps(other) {
					t.Errorf("accepted overlapping cluster CIDRs %s and %s", p, other)
				}
			}
		}
	})
}
