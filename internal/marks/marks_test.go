package marks

import (
	"strings"
	"testing"
)

// A mask is two bits that belong to no program which is common on nodes.
func TestMaskIsTwoBitsOfItsOwn(t *testing.T) {
	for mask, fault := range map[Mask]string{
		DefaultMask: "", 0x80000001: "", 0x300: "", 0x1100: "",
		0: "two bits", 1: "two bits", 0x70000000: "two bits", 0xffffffff: "two bits",
		0x4001: "kube-proxy", 0x8001: "kube-proxy", 0xc000: "kube-proxy",
		0x2001: "portmap", 0x10001: "Tailscale", 0x800001: "Tailscale", 0x40080000: "Tailscale",
	} {
		err := mask.Check()
		if fault == "" && err != nil || fault != "" && (err == nil || !strings.Contains(err.Error(), fault)) {
			t.Errorf("%#x: %v, want %q", uint32(mask), err, fault)
		}
		if err == nil && (mask.FromOverlay()|mask.OwnDatagram() != mask.Bridged() || mask.FromOverlay() >= mask.OwnDatagram() || mask.Bridged() != uint32(mask)) {
			t.Errorf("%#x: %#x, %#x and %#x", uint32(mask), mask.FromOverlay(), mask.OwnDatagram(), mask.Bridged())
		}
	}
}
