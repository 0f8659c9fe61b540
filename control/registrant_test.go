package control

import "testing"

// Run receives the last of several calls, and Register never waits.
func TestOnlyTheLastRegistrationCounts(t *testing.T) {
	var r Registrant
	if r.Self() != nil {
		t.Error("registered before Register")
	}
	r.Register(Self{Down: "first"})
	r.Register(Self{Down: "last"})
	<-r.Registered()
	if got := r.Self(); got == nil || got.Down != "last" {
		t.Errorf("%+v", got)
	}
	select {
	case <-r.Registered():
		t.Error("received twice")
	default:
	}
	r.Register(Self{})
	<-r.Registered()
}
