package hostnet

import (
	"errors"
	"sync/atomic"

	"weft/internal/marks"
	"weft/internal/nftable"
)

// repairs counts the Applies of an unchanged Network that changed something in the kernel, by
// what they changed.
type repairs struct{ guard, bridge, network atomic.Uint64 }

// What Repairs counts.
const (
	RepairedGuard   = "guard_table"
	RepairedBridge  = "bridge_table"
	RepairedNetwork = "network" // routes, rules, addresses and sysctls
)

// Repairs returns how often Apply has restored something that it had made before, by what that
// was. It doesn't wait for an Apply that is under way.
func (h *Host) Repairs() map[string]uint64 {
	return map[string]uint64{
		RepairedGuard:   h.repairs.guard.Load(),
		RepairedBridge:  h.repairs.bridge.Load(),
		RepairedNetwork: h.repairs.network.Load(),
	}
}

// changed counts an Apply that changed something. Again says that the one before it was of the
// same Network, so that this one is a repair.
func (h *Host) changed(what *atomic.Uint64, again bool) {
	h.repaired.Add(1)
	if again {
		what.Add(1)
	}
}

// GuardStands reports whether the kernel's guard table is the one that the last Apply or Protect
// made. It asks for the table, and not for its rules: what happens to these, Watch sees.
func (h *Host) GuardStands() (bool, error) {
	comment, err := nftable.Comment(nftable.Inet, marks.Table)
	if errors.Is(err, nftable.ErrAbsent) {
		return false, nil
	}
	return err == nil && comment == h.Guard().Comment, err
}
