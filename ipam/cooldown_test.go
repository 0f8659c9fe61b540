package ipam

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// clock is a machine's uptime that a test moves.
type clock struct{ moment }

func (c *clock) install(s *Store) *Store {
	s.now = func() (moment, error) { return c.moment, nil }
	return s
}

func (c *clock) pass(d time.Duration) { c.uptime += d }

func (c *clock) reboot() { c.moment = moment{c.boot + "'", 0} }

// twoAddresses is a pool in which what was released is soon needed again.
func twoAddresses() Pool {
	p := pool(prefixes("10.0.0.0/30"))
	p.Cooldown = 2 * time.Minute
	return p
}

// Released addresses stay unused while others are free; when none is, the one that was
// released longest ago comes first.
func TestAReleasedAddressCoolsDown(t *testing.T) {
	dir, c := t.TempDir(), &clock{moment{"boot", time.Hour}}
	p := pool(prefixes("10.0.0.0/29"), addrs("10.0.0.6")...)
	p.Cooldown = 2 * time.Minute
	reopened := func() *Store { return c.install(open(t, dir)) } // as each call of the plugin does
	take := func(n int, want string) {
		t.Helper()
		l, err := reopened().Acquire(t.Context(), wanted(n), p)
		if err != nil || l.Addresses[0] != netip.MustParseAddr(want) {
			t.Errorf("got %v, %v; want %s", l.Addresses, err, want)
		}
	}
	for n := range 4 {
		take(n, addrs("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")[n].String())
	}
	release(t, reopened(), 2)
	c.pass(50 * time.Second)
	release(t, reopened(), 0)
	if u, err := reopened().Usage(p); u.Leases != 2 || u.CoolingDown != 2 || err != nil {
		t.Errorf("in use: %+v, %v; want 2 leases, 2 cooling down", u, err)
	}
	if u, err := reopened().Usage(Pool{Cooldown: 30 * time.Second}); u.CoolingDown != 1 || err != nil {
		t.Errorf("by a shorter cooldown: %+v, %v; want 1 cooling down", u, err)
	}
	if _, cooling, _ := reopened().List(); len(cooling) != 2 {
		t.Errorf("cooling down: %v, want both", cooling)
	}
	take(4, "10.0.0.5") // the last one that is free
	if err := reopened().Available(p); err != nil {
		t.Errorf("Available: %v", err)
	}
	take(5, "10.0.0.3")
	release(t, reopened(), 5)
	take(6, "10.0.0.1") // longer ago than what was released just now
	take(7, "10.0.0.3")
	if _, err := reopened().Acquire(t.Context(), wanted(8), p); !errors.Is(err, ErrExhausted) {
		t.Errorf("got %v, want ErrExhausted", err)
	}
	if err := reopened().Available(p); !errors.Is(err, ErrExhausted) {
		t.Errorf("Available: %v, want ErrExhausted", err)
	}
	release(t, reopened(), 1)
	release(t, reopened(), 7)
	c.pass(2*time.Minute + time.Millisecond)
	release(t, reopened(), 4)
	take(9, "10.0.0.2") // cooled down, and so free again, while 10.0.0.5 is not
}

// A storm of failing sandboxes empties no pool, whether ADD itself fails or what comes
// after it; and an address in which no pod ever was is free at once.
func TestFailedPodsDoNotEmptyThePool(t *testing.T) {
	for name, end := range map[string]func(*Store, int) error{
		"never complete": func(s *Store, n int) error { _, _, err := s.Cancel(t.Context(), attachment(n)); return err },
		"complete":       func(s *Store, n int) error { _, _, err := s.Release(t.Context(), attachment(n)); return err },
	} {
		t.Run(name, func(t *testing.T) {
			c, p := &clock{moment{"boot", time.Hour}}, pool(prefixes("10.0.0.0/28", "fd00::/124"))
			p.Cooldown = 2 * time.Minute
			s := c.install(open(t, t.TempDir()))
			last := map[netip.Addr]int{}
			for n := range 60 {
				l, err := s.Acquire(t.Context(), wanted(n), p)
				if err != nil {
					t.Fatal(err)
				}
				for _, a := range l.Addresses {
					if before, ok := last[a]; ok && n-before < 14 {
						t.Fatalf("%s was in use %d pods ago while others were free", a, n-before)
					}
					last[a] = n
				}
				if err := end(s, n); err != nil {
					t.Fatal(err)
				}
				c.pass(time.Second)
			}
			_, cooling, err := s.List()
			if err != nil || (len(cooling) == 0) != (name == "never complete") {
				t.Errorf("cooling down: %v, %v", cooling, err)
			}
		})
	}
}

// An address that cooled down when it was leased cools down again when the lease is cancelled.
func TestCancelledLeasesWereUsedBefore(t *testing.T) {
	for name, asked := range map[string][]string{"the only one": nil, "by name": {"10.0.0.1"}} {
		t.Run(name, func(t *testing.T) {
			s, p := open(t, t.TempDir()), twoAddresses()
			for n := range 2 {
				if _, err := s.Acquire(t.Context(), wanted(n), p); err != nil {
					t.Fatal(err)
				}
			}
			release(t, s, 0)
			if l, err := s.Acquire(t.Context(), wanted(3, asked...), p); err != nil || !l.Early {
				t.Fatalf("%+v, %v", l, err)
			}
			if _, ok, err := s.Cancel(t.Context(), attachment(3)); !ok || err != nil {
				t.Fatal(ok, err)
			}
			if _, cooling, err := s.List(); err != nil || len(cooling) != 1 {
				t.Errorf("cooling down: %v, %v", cooling, err)
			}
		})
	}
}

func TestCooldownAfterARebootCountsFromIt(t *testing.T) {
	c, p := &clock{moment{"boot", 1000 * time.Hour}}, twoAddresses()
	s := c.install(open(t, t.TempDir()))
	for n := range 2 {
		if _, err := s.Acquire(t.Context(), wanted(n), p); err != nil {
			t.Fatal(err)
		}
		release(t, s, n)
	}
	c.reboot()
	c.pass(2*time.Minute - time.Millisecond)
	if u, err := s.Usage(p); u.CoolingDown != 2 || err != nil {
		t.Errorf("cooling down: %+v, %v; want 2", u, err)
	}
	c.pass(time.Millisecond)
	if u, err := s.Usage(p); u.CoolingDown != 0 || err != nil {
		t.Errorf("cooling down: %+v, %v; want none", u, err)
	}
}

// The wall clock is nowhere asked: this compares with the machine's real uptime.
func TestClockStepsDoNotShortenCooldown(t *testing.T) {
	s, p := open(t, t.TempDir()), twoAddresses()
	for n := range 2 {
		if _, err := s.Acquire(t.Context(), wanted(n), p); err != nil {
			t.Fatal(err)
		}
		release(t, s, n)
	}
	before, err := now()
	if err != nil {
		t.Fatal(err)
	}
	st, err := readState(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range st.CoolingDown {
		left := r.left(before, p.Cooldown)
		if r.Boot != before.boot || left < p.Cooldown-time.Minute || left > p.Cooldown+time.Second {
			t.Errorf("%+v cools down for %s more", r, left)
		}
	}
	p.Cooldown = 0
	if _, err := s.Acquire(t.Context(), wanted(3), p); err != nil {
		t.Errorf("without a cooldown: %v", err)
	}
}

// A caller that cannot read the time releases nothing.
func TestReleaseNeedsTheTime(t *testing.T) {
	s := open(t, t.TempDir())
	acquire(t, s, 1, prefixes("10.0.0.0/24"))
	s.now = func() (moment, error) { return moment{}, errors.New("no /proc") }
	if _, _, err := s.Release(t.Context(), attachment(1)); err == nil {
		t.Error("Release succeeded")
	}
	if err := s.Available(pool(prefixes("10.0.0.0/24"))); err == nil {
		t.Error("Available succeeded")
	}
	if _, err := s.Usage(Pool{Cooldown: time.Minute}); err == nil {
		t.Error("Usage succeeded")
	}
	if leases := list(t, s); len(leases) != 1 {
		t.Errorf("leases: %v", leases)
	}
}

func TestAnAddressIsHadByName(t *testing.T) {
	p := pool(prefixes("10.0.0.0/24", "10.0.8.0/24", "fd00::/64"), addrs("10.0.0.1")...)
	p.Cooldown = time.Hour
	s := open(t, t.TempDir())
	take := func(n int, names ...string) ([]netip.Addr, error) {
		l, err := s.Acquire(t.Context(), wanted(n, names...), p)
		return l.Addresses, err
	}
	for i, tt := range []struct{ names, want []string }{
		{[]string{"10.0.0.9"}, []string{"10.0.0.9", "fd00::1"}},
		{[]string{"fd00::9"}, []string{"10.0.0.2", "fd00::9"}},
		{[]string{"fd00::7", "10.0.8.7"}, []string{"10.0.8.7", "fd00::7"}},
	} {
		got, err := take(i, tt.names...)
		if diff := cmp.Diff(addrs(tt.want...), got, cmpAddrs); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", tt.names, err, diff)
		}
	}
	for _, tt := range []struct {
		names []string
		want  string
	}{
		{[]string{"10.0.0.9"}, "10.0.0.9 is held by container0/eth0"},
		{[]string{"10.0.0.1"}, "10.0.0.1 is reserved"},
		{[]string{"10.0.1.1"}, "10.0.1.1 is in no range"},
		{[]string{"10.0.0.255"}, "10.0.0.255 is in no range"},
		{[]string{"10.0.0.77", "10.0.8.77"}, "10.0.8.77 is in no range from which an address is still needed"},
	} {
		if _, err := take(9, tt.names...); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want ErrRefused, %q", tt.names, err, tt.want)
		}
	}
	if leases := list(t, s); len(leases) != 3 {
		t.Errorf("a refused call left a lease: %v", leases)
	}
	// A pod that asks for an address by name gets it from the pod that had it before.
	release(t, s, 0)
	if got, err := take(9, "10.0.0.9"); err != nil || got[0] != addrs("10.0.0.9")[0] {
		t.Errorf("an address that cools down: %v, %v", got, err)
	}
	// A repeated call that asks for another address does not get the old one.
	if got, err := take(9, "10.0.0.10"); err != nil || got[0] != addrs("10.0.0.10")[0] {
		t.Errorf("asked for another: %v, %v", got, err)
	}
	if leases := list(t, s); len(leases) != 3 {
		t.Errorf("leases: %v", leases)
	}
}

func TestReservedRangesAreLeftOut(t *testing.T) {
	p := Pool{
		Ranges:   prefixes("10.0.0.0/28", "fd00::/64"),
		Reserved: prefixes("10.0.0.0/29", "10.0.0.10/32", "fd00::/65", "192.0.2.0/24"),
	}
	s := open(t, t.TempDir())
	var got []string
	for n := range 6 {
		l, err := s.Acquire(t.Context(), wanted(n), p)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, l.Addresses[0].String())
		if a := l.Addresses[1]; p.Reserved[2].Contains(a) {
			t.Errorf("%s is reserved", a)
		}
	}
	if diff := cmp.Diff([]string{"10.0.0.8", "10.0.0.9", "10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.14"}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := s.Acquire(t.Context(), wanted(7), p); !errors.Is(err, ErrExhausted) {
		t.Errorf("got %v, want ErrExhausted", err)
	}
	p.Reserved = prefixes("10.0.0.0/28")
	if _, err := s.Acquire(t.Context(), wanted(7), p); !errors.Is(err, ErrExhausted) {
		t.Errorf("all reserved: got %v, want ErrExhausted", err)
	}
}

func TestRecordedAddressesAreLeased(t *testing.T) {
	s, ranges := open(t, t.TempDir()), prefixes("10.0.0.0/24")
	acquire(t, s, 1, ranges)
	if err := s.Record(t.Context(), wanted(2, "10.0.0.1")); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v, want ErrRefused", err)
	}
	recorded := wanted(2, "10.0.0.2", "192.0.2.7")
	recorded.Pod = "default/nginx"
	if err := s.Record(t.Context(), recorded); err != nil {
		t.Fatal(err)
	}
	if got := acquire(t, s, 3, ranges); got[0] != addrs("10.0.0.3")[0] {
		t.Errorf("got %v: what is recorded must not be given out", got)
	}
	_, err := s.Acquire(t.Context(), wanted(4, "10.0.0.2"), pool(ranges))
	if err == nil || !strings.Contains(err.Error(), "container2/eth0 (pod default/nginx)") {
		t.Errorf("got %v, want the holder's name", err)
	}
	if l, ok, err := s.Find(attachment(2)); err != nil || !ok || l.Pod != recorded.Pod {
		t.Errorf("found %+v, %t, %v", l, ok, err)
	}
}

func TestAnAttachmentIsTriedWithoutAWait(t *testing.T) {
	s := open(t, t.TempDir())
	letGo, ok, err := s.TryHold(attachment(1))
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if _, ok, err := s.TryHold(attachment(1)); err != nil || ok {
		t.Errorf("held twice: %t, %v", ok, err)
	}
	letGo()
	// A caller that gave up waiting may get the lock for a moment.
	for deadline := time.Now().Add(time.Minute); ; {
		if letGo, ok, err = s.TryHold(attachment(1)); err != nil || !ok && time.Now().After(deadline) {
			t.Fatal(ok, err)
		}
		if ok {
			break
		}
	}
	letGo()
	if _, _, err := open(t, "/proc/no").TryHold(attachment(1)); err == nil {
		t.Error("held in a folder that can't be")
	}
}

// leaseFile is what weft wrote before cooldowns had that name.
const leaseFile = `{
  "version": 2,
  "checksum": "sha256:f41bfac8fd13f954e5bd1618b5a5f1f631706cca81d36610eb571df7f16a621a",
  "leases": [
    {
      "containerID": "a",
      "ifName": "eth0",
      "addresses": [
        "10.0.0.1"
      ],
      "since": "2026-11-30T12:36:34Z"
    }
  ],
  "cursors": {
    "10.0.0.0/24": "10.0.0.2"
  },
  "resting": [
    {
      "address": "10.0.0.2",
      "boot": "d198c8ed-0d22-436a-a50e-d3c0e76d03af",
      "uptimeMilliseconds": 6426422
    }
  ]
}
`

func TestLeaseFilesKeepTheirLayout(t *testing.T) {
	st, err := decode([]byte(leaseFile))
	if err != nil || len(st.Leases) != 1 || len(st.CoolingDown) != 1 {
		t.Fatalf("%+v, %v", st, err)
	}
	if data, err := encode(st); err != nil || string(data) != leaseFile {
		t.Errorf("it is written as %s, %v", data, err)
	}
}
