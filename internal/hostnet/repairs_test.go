package hostnet

import (
	"net/netip"
	"slices"
	"testing"
)

// What Apply does for a new Network is no repair.
func TestChangesAreNoRepairs(t *testing.T) {
	ns, host := newNamespace(t), newHost()
	ns.openTUN(t, "weft0")
	n := testNetwork()
	apply := func(wantNetwork, wantGuard uint64) {
		t.Helper()
		ns.do(t, func() {
			if err := host.Apply(t.Context(), n); err != nil {
				t.Error(err)
			}
		})
		if got := host.Repairs(); got["network"] != wantNetwork || got["guard_table"] != wantGuard {
			t.Errorf("repairs: %v; want %d of the network, %d of the guard table", got, wantNetwork, wantGuard)
		}
	}
	apply(0, 0)
	n.PeerCIDRs = append(slices.Clone(n.PeerCIDRs), netip.MustParsePrefix("10.244.77.0/24"))
	apply(0, 0)
	ns.ip(t, "route del 10.244.77.0/24")
	apply(1, 0)
	apply(1, 0)
	ns.run(t, "nft", "delete", "table", "inet", "weft")
	apply(1, 1)
}

func TestGuardThatIsGoneDoesNotStand(t *testing.T) {
	ns, host := newNamespace(t), newHost()
	stands := func(want bool) {
		t.Helper()
		ns.do(t, func() {
			if got, err := host.GuardStands(); got != want || err != nil {
				t.Errorf("the guard table stands: %t, %v; want %t", got, err, want)
			}
		})
	}
	protect := func() {
		t.Helper()
		ns.do(t, func() {
			if err := host.Protect(t.Context(), testNetwork()); err != nil {
				t.Error(err)
			}
		})
	}
	stands(false)
	protect()
	stands(true)
	ns.run(t, "nft", "delete", "table", "inet", "weft")
	stands(false)
	ns.run(t, "nft", "add", "table", "inet", "weft", `{ comment "another's"; }`)
	stands(false)
	protect()
	stands(true)
}
