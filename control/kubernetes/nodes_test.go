package kubernetes

import (
	"errors"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"weft/control"
	"weft/peer"
)

// TestEveryDifferenceOfMembersIsNews fails if equal forgets a field.
func TestEveryDifferenceOfMembersIsNews(t *testing.T) {
	some := member{created: time.Unix(1, 0), wrong: []error{errors.New("x")}, node: control.Node{
		Name: "node1", Origin: "Node node1", Endpoint: netip.MustParseAddrPort("192.168.77.1:9338"),
		Addresses: []netip.Addr{netip.MustParseAddr("192.168.78.1")},
		PodCIDRs:  []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}, VTEPMAC: peer.MAC{2}, Key: peer.Fingerprint{1},
	}}
	if !some.equal(some) || some.equal(member{node: some.node, wrong: some.wrong}) || some.equal(member{node: some.node, created: some.created}) {
		t.Error("a member's time and what is wrong with it are not compared rightly")
	}
	for i := range reflect.TypeFor[control.Node]().NumField() {
		other := some
		reflect.ValueOf(&other.node).Elem().Field(i).SetZero()
		if some.equal(other) {
			t.Errorf("%s is not compared", reflect.TypeFor[control.Node]().Field(i).Name)
		}
	}
}
