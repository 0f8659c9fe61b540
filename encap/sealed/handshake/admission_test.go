package handshake

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
)

// admissions is an admission with what QUIC does with it.
type admissions struct {
	*admission
	t *testing.T
}

func newAdmissions(t *testing.T) admissions {
	return admissions{newAdmission(new(limit), newReplies()), t}
}

func from(n int) sender {
	addr := netip.AddrFrom4([4]byte{192, 168, byte(n >> 8), byte(n)})
	return sender{net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 9338)), time.Now()}
}

// begin returns how to end the handshake that a node begins, or nil if it is refused.
func (a admissions) begin(s sender, proven bool) (end context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	a.t.Cleanup(cancel)
	if _, err := a.admit(ctx, &quic.ClientInfo{RemoteAddr: s, AddrVerified: proven}); err != nil {
		return nil
	}
	return cancel
}

// Senders that can't prove their addresses have half of the places at the most, and every other
// one of them is for those that can.
func TestForgedAddressesLeaveHalfThePlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmissions(t)
		forged := 0
		for n := range 10 * beginWith {
			if s := from(n); !a.verifyAddress(s) && a.begin(s, false) != nil {
				forged++
			}
		}
		if forged != beginWith/2 {
			t.Errorf("%d handshakes of forged addresses are under way", forged)
		}
		for n := range beginWith / 2 {
			if a.begin(from(n), true) == nil {
				t.Fatalf("handshake %d of a proven address was refused", n)
			}
		}
	})
}

// One address never has more than some places, proven or not.
func TestOneAddressHasFewPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmissions(t)
		for range fromUnproven {
			if a.verifyAddress(from(1)) || a.begin(from(1), false) == nil {
				t.Fatal("an address without handshakes is refused, or must prove that it is its own")
			}
		}
		if !a.verifyAddress(from(1)) {
			t.Error("the address need not prove that it is its own")
		}
		for n := fromUnproven; n < fromProven; n++ {
			if a.begin(from(1), true) == nil {
				t.Fatalf("handshake %d is refused", n)
			}
		}
		if a.begin(from(1), true) != nil {
			t.Error("there is no end to it")
		}
		if a.begin(from(2), true) == nil {
			t.Error("another address is refused")
		}
	})
}

// A handshake waits for a place, and takes it when one becomes free. One that waits in vain is
// refused, and with it the copies of its packets.
func TestHandshakesWaitForAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmissions(t)
		var ends []context.CancelFunc
		for n := range beginWith {
			ends = append(ends, a.begin(from(n), true))
		}
		time.AfterFunc(placeWithin/2, ends[0])
		if a.begin(from(1000), true) == nil {
			t.Error("it does not get the place that became free")
		}
		s := from(1001)
		if a.begin(s, true) != nil {
			t.Fatal("there is one more than the limit")
		}
		if waited := time.Since(s.arrived); waited != placeWithin {
			t.Errorf("it was refused after %v", waited)
		}
		ends[1]()
		synctest.Wait()
		if a.begin(s, true) != nil {
			t.Error("a copy of a refused packet begins a handshake")
		}
		time.Sleep(refusedFor)
		if a.begin(from(1001), true) == nil {
			t.Error("its next dial is refused too")
		}
		if a.refused != 1 {
			t.Errorf("%d dials count as refused", a.refused)
		}
	})
}
