package handshake_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"weft/drop"
	"weft/encap/sealed/handshake"
)

// up has two nodes agree on keys.
func (n *simNode) up(t *testing.T, o *simNode) {
	t.Helper()
	n.send(o.self, "hello")
	time.Sleep(time.Second)
	if got := o.got(); !slices.Equal(got, []string{"hello"}) || n.status(o).State != handshake.Up || o.status(n).State != handshake.Up {
		t.Fatalf("%q arrives; %s: %+v, %s: %+v", got, n.self.Name, n.status(o), o.self.Name, o.status(n))
	}
}

func TestIdleKeysLiveOnThenEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := simNodes(t, 2)
		a, b := nodes[0], nodes[1]
		a.up(t, b)
		time.Sleep(2 * time.Minute)
		if s := a.status(b); s.State != handshake.Idle || time.Since(s.Heard) > 2*time.Minute || time.Since(s.Heard) < 30*time.Second {
			t.Errorf("after two minutes: %+v", s)
		}
		agreed := a.manager.Counts().Agreed
		a.send(b.self, "with the old keys")
		time.Sleep(2 * simLatency)
		if got := b.got(); len(got) != 1 || a.manager.Counts().Agreed != agreed {
			t.Errorf("%q arrives", got)
		}
		time.Sleep(5 * time.Second)
		if s := a.status(b); s.State != handshake.Up || a.manager.Counts().Agreed == agreed {
			t.Errorf("they don't look after each other again: %+v", s)
		}
		time.Sleep(11 * time.Minute)
		for _, n := range nodes {
			other := nodes[2-int(n.self.Endpoint.Addr().As4()[3])]
			if s := n.status(other); s.State != handshake.NoKeys || s.Heard.IsZero() || len(n.peers.Find(other.self.Key).Epochs()) != 0 {
				t.Errorf("%s still has keys, or does not say when it last heard: %+v", n.self.Name, s)
			}
		}
		a.send(b.self, "new keys")
		time.Sleep(time.Second)
		if got := b.got(); !slices.Equal(got, []string{"new keys"}) {
			t.Errorf("%q arrives", got)
		}
	})
}

func TestVainEpochEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := simNodes(t, 2)
		a, b := nodes[0], nodes[1]
		if err := a.manager.DialInVain(t.Context(), b.self); err != nil {
			t.Fatal(err)
		}
		peer := b.peers.Find(a.self.Key)
		if len(peer.Epochs()) != 1 {
			t.Fatalf("b has %d epochs", len(peer.Epochs()))
		}
		time.Sleep(15 * time.Second)
		if n := len(peer.Epochs()); n != 0 {
			t.Errorf("b still has %d epochs", n)
		}
	})
}

// While packets pass, no key is used for longer than 8 minutes and some seconds, none is
// replaced before 5, and no packet is lost; replaced keys are gone within 11 seconds.
func TestKeysAreReplacedWithinMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := simNodes(t, 2)
		a, b := nodes[0], nodes[1]
		a.up(t, b)
		began, last := a.status(b).Began, time.Now()
		var ages []time.Duration
		for i := range 2 * 60 * 60 * 2 { // two hours
			text := fmt.Sprint("packet ", i)
			from, to := nodes[i%2], nodes[1-i%2]
			from.send(to.self, text)
			time.Sleep(500 * time.Millisecond)
			if got := to.got(); !slices.Equal(got, []string{text}) {
				t.Fatalf("packet %d: %q arrives", i, got)
			}
			for _, n := range nodes {
				epochs := n.peers.Find(nodes[0].self.Key)
				if n == a {
					epochs = n.peers.Find(b.self.Key)
				}
				for _, e := range epochs.Epochs() {
					if age := time.Since(e.Began()); age > 8*time.Minute+15*time.Second {
						t.Fatalf("%s has keys that are %v old", n.self.Name, age)
					}
				}
			}
			if now := a.status(b).Began; now != began {
				ages = append(ages, time.Since(last))
				began, last = now, time.Now()
			}
		}
		if a.dropped()+b.dropped() != 0 {
			t.Errorf("packets were dropped: %v %v", a.drops, b.drops)
		}
		if len(ages) < 2*60/9 || slices.Min(ages) < 5*time.Minute-2*time.Second || slices.Max(ages)-slices.Min(ages) < 20*time.Second {
			t.Errorf("keys lasted %v", ages)
		}
	})
}

// Where handshakes fail while packets pass, keys outlive ten minutes, which is said, and at
// half an hour nothing more is sealed with them.
func TestKeysEndWhileHandshakesFail(t *testing.T) {
	for name, onlyData := range map[string]bool{"and data passes": true, "and nothing comes back": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network, nodes := simNodes(t, 2)
				a, b := nodes[0], nodes[1]
				a.up(t, b)
				began := time.Now()
				network.setPass(func(from, _ netip.AddrPort, payload []byte) bool {
					return payload[0] < 0x40 && (onlyData || from == a.self.Endpoint)
				})
				sent := time.Duration(0)
				for time.Since(began) < 35*time.Minute {
					a.send(b.self, "packet")
					b.send(a.self, "packet")
					time.Sleep(time.Second)
					if len(b.got()) > 0 {
						sent = time.Since(began)
					}
					a.got()
					age := time.Since(began)
					s := a.status(b)
					if overdue := age > 10*time.Minute+2*time.Second && age < 30*time.Minute-2*time.Second; overdue && !s.Overdue || age < 10*time.Minute-2*time.Second && s.Overdue {
						t.Fatalf("after %v: %+v", age, s)
					}
					if s.Err == nil && age > 10*time.Second && !onlyData {
						t.Fatalf("after %v no error is reported: %+v", age, s)
					}
				}
				if sent < 29*time.Minute || sent > 30*time.Minute+2*time.Second {
					t.Errorf("the last packet went out after %v", sent)
				}
				if s := a.status(b); !s.Began.IsZero() || s.Overdue || s.State != handshake.Unreachable {
					t.Errorf("in the end: %+v", s)
				}
				if a.logged("rekey overdue") != 1 || a.logged("data keys expired") != 1 {
					t.Errorf("the log says:\n%s", a.log)
				}
				network.setPass(nil)
				time.Sleep(time.Minute)
				a.send(b.self, "again")
				time.Sleep(10 * time.Second)
				if got := b.got(); !slices.Contains(got, "again") || a.status(b).State != handshake.Up {
					t.Errorf("%q arrives; %+v", got, a.status(b))
				}
			})
		})
	}
}

// A peer that has not answered is found again, without a packet for it, and without a
// handshake if its packets arrive.
func TestRecoveredPeerIsReachable(t *testing.T) {
	for name, quiet := range map[string]bool{"with no packets": true, "by its packets": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network, nodes := simNodes(t, 2)
				a, b := nodes[0], nodes[1]
				a.up(t, b)
				network.setPass(func(_, _ netip.AddrPort, _ []byte) bool { return false })
				time.Sleep(20 * time.Second)
				s := a.status(b)
				if since := time.Since(s.Heard); s.State != handshake.Unreachable || s.Err == nil || since < 15*time.Second || since > 30*time.Second {
					t.Fatalf("after 20 s: %+v", s)
				}
				if quiet {
					time.Sleep(20 * time.Minute)
					if s := a.status(b); s.State != handshake.Unreachable || time.Since(s.Heard) < 20*time.Minute {
						t.Fatalf("after 20 min: %+v", s)
					}
					network.setPass(nil)
					time.Sleep(2 * time.Minute)
					if s := a.status(b); s.State == handshake.Unreachable || s.Err != nil || time.Since(s.Heard) > 2*time.Minute {
						t.Errorf("two minutes after it is back: %+v", s)
					}
					return
				}
				network.setPass(func(_, _ netip.AddrPort, payload []byte) bool { return payload[0] < 0x40 })
				for range 20 {
					if reason := b.send(a.self, "still here"); reason != drop.None {
						t.Fatal(reason)
					}
					time.Sleep(time.Second)
				}
				if s := a.status(b); s.State != handshake.Up || time.Since(s.Heard) > 3*time.Second {
					t.Errorf("while its packets arrive: %+v", s)
				}
			})
		})
	}
}
