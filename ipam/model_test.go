package ipam

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// model is what the leases of a node's two networks must be, in the simplest form: each holder's
// addresses, and when each address was released.
type model struct {
	held     map[int][]netip.Addr
	early    map[int]bool // whether one of what is held cooled down before
	released map[netip.Addr]time.Duration
}

// unheld reports whether no attachment holds addr.
func (m *model) unheld(addr netip.Addr) bool {
	for _, addrs := range m.held {
		if slices.Contains(addrs, addr) {
			return false
		}
	}
	return true
}

// cooling reports whether addr was released too short a time ago.
func (m *model) cooling(addr netip.Addr, at, cooldown time.Duration) bool {
	released, ok := m.released[addr]
	return ok && cooldown > 0 && at < released+cooldown
}

// better returns an address that had to be given before one that still cools down: one of
// the same family that is free, or was released longer ago.
func (m *model) better(than netip.Addr, s familyRanges, p Pool, at time.Duration) (netip.Addr, bool) {
	for _, span := range s.spans {
		for addr := span.first; span.contains(addr); addr = addr.Next() {
			if !m.unheld(addr) || p.reserves(addr) || addr == than {
				continue
			}
			// The store rounds a cooldown up, by a millisecond at most.
			if !m.cooling(addr, at-time.Millisecond, p.Cooldown) || m.cooling(addr, at, p.Cooldown) && m.released[addr] < m.released[than]-time.Millisecond {
				return addr, true
			}
		}
	}
	return netip.Addr{}, false
}

// openFor opens the network of an attachment.
func openFor(t *testing.T, dir string, whom int) *Store {
	t.Helper()
	s, err := Open(dir, []string{"weft", "other"}[whom%2])
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// FuzzOperations compares the store with the model over sequences of calls. Each pair of
// bytes is one: the call, and its attachment.
func FuzzOperations(f *testing.F) {
	f.Add([]byte{0, 1, 0, 2, 1, 1, 0, 3, 2, 60, 0, 4})
	f.Add([]byte{0, 1, 1, 1, 3, 0, 0, 2, 2, 120, 0, 3, 5, 0, 0, 1, 4, 9})
	f.Add([]byte{0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 1, 3, 0, 7, 2, 255, 0, 7, 6, 2})
	f.Add([]byte{0, 1, 0, 2, 0, 3, 0, 4, 1, 1, 0, 5, 0, 6, 7, 5, 7, 6, 1, 2, 2, 9, 0, 7, 7, 7, 3, 0, 0, 8})
	f.Fuzz(func(t *testing.T, calls []byte) {
		dir, c := t.TempDir(), &clock{moment{"boot", time.Hour}}
		m := &model{map[int][]netip.Addr{}, map[int]bool{}, map[netip.Addr]time.Duration{}}
		p := pool(prefixes("10.0.0.0/29", "10.0.9.0/30", "fd00::/125"), addrs("10.0.0.1")...)
		p.Cooldown = 90 * time.Second
		for i := 0; i+1 < len(calls) && i < 200; i += 2 {
			what, whom := calls[i]%8, int(calls[i+1]%10)
			s := c.install(openFor(t, dir, whom)) // nothing is remembered but the files
			switch what {
			case 0:
				m.acquire(t, s, p, wanted(whom), whom, c.uptime)
			case 1:
				m.release(t, s, whom, c.uptime)
			case 2:
				c.pass(time.Duration(calls[i+1]) * time.Second)
			case 3:
				c.reboot()
				for addr := range m.released {
					m.released[addr] = 0
				}
			case 4: // an address by name
				asked := wanted(whom, []string{"10.0.0.2", "10.0.9.1", "10.0.0.1", "fd00::7", "fd00::8"}[calls[i+1]/10%5])
				m.acquire(t, s, p, asked, whom, c.uptime)
			case 5:
				m.damage(t, dir)
			case 7:
				m.cancel(t, s, whom, c.uptime)
			case 6: // the node gets another range
				p.Ranges = prefixes("10.0.0.0/29", "10.0.9.0/30", "fd00::/125")[:1+whom%3]
			}
			m.compare(t, dir)
		}
	})
}

func (m *model) acquire(t *testing.T, s *Store, p Pool, asked Lease, whom int, at time.Duration) {
	t.Helper()
	families, err := p.families()
	if err != nil {
		t.Fatal(err)
	}
	before := m.held[whom]
	lease, err := s.Acquire(t.Context(), asked, p)
	if err != nil {
		if !errors.Is(err, ErrExhausted) && !errors.Is(err, ErrRefused) {
			t.Fatal(err)
		}
		m.justified(t, err, p, families, whom)
		return // nothing may have changed, says compare
	}
	if !p.fits(families, lease.Addresses, asked.Addresses) {
		t.Errorf("%v does not fit %v", lease, p)
	}
	if slices.Equal(before, lease.Addresses) {
		return
	}
	for _, addr := range before {
		m.released[addr] = at
	}
	delete(m.held, whom)
	early := false
	for i, addr := range lease.Addresses {
		if !m.unheld(addr) {
			t.Errorf("%s was given to %d, and is another's", addr, whom)
		}
		cooling := m.cooling(addr, at, p.Cooldown)
		if other, ok := m.better(addr, families[i], p, at); ok && cooling && !slices.Contains(asked.Addresses, addr) {
			t.Errorf("%s was given to %d too early: %s is free, or was released longer ago", addr, whom, other)
		}
		early = early || cooling
	}
	if early != lease.Early {
		t.Errorf("%v of %d was taken early: %t, says the lease", lease.Addresses, whom, lease.Early)
	}
	for _, addr := range lease.Addresses {
		delete(m.released, addr)
	}
	m.held[whom], m.early[whom] = lease.Addresses, early
}

// justified fails if a call was refused though each family has a free address.
func (m *model) justified(t *testing.T, err error, p Pool, families []familyRanges, whom int) {
	t.Helper()
	if errors.Is(err, ErrRefused) {
		return
	}
	for _, s := range families {
		var free bool
		for _, span := range s.spans {
			for addr := span.first; span.contains(addr); addr = addr.Next() {
				free = free || m.unheld(addr) && !p.reserves(addr)
			}
		}
		if !free {
			return
		}
	}
	t.Errorf("%d was refused though there are free addresses: %v; held %v", whom, err, m.held)
}

func (m *model) release(t *testing.T, s *Store, whom int, at time.Duration) {
	t.Helper()
	lease, ok, err := s.Release(t.Context(), attachment(whom))
	if err != nil {
		t.Fatal(err)
	}
	if _, held := m.held[whom]; held != ok || ok && !slices.Equal(lease.Addresses, m.held[whom]) {
		t.Errorf("released %v, %t; want %v", lease.Addresses, ok, m.held[whom])
	}
	for _, addr := range m.held[whom] {
		m.released[addr] = at
	}
	delete(m.held, whom)
}

// cancel ends a lease that was never used.
func (m *model) cancel(t *testing.T, s *Store, whom int, at time.Duration) {
	t.Helper()
	lease, ok, err := s.Cancel(t.Context(), attachment(whom))
	if err != nil {
		t.Fatal(err)
	}
	if _, held := m.held[whom]; held != ok || ok && !slices.Equal(lease.Addresses, m.held[whom]) {
		t.Errorf("cancelled %v, %t; want %v", lease.Addresses, ok, m.held[whom])
	}
	for _, addr := range m.held[whom] {
		if m.early[whom] {
			m.released[addr] = at
		}
	}
	delete(m.held, whom)
}

// damage has the files rebuilt from what runs. Cooldowns are forgotten.
func (m *model) damage(t *testing.T, dir string) {
	t.Helper()
	stores, err := OpenAll(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stores {
		running := list(t, s)
		damage(t, s)
		if path, err := s.Rebuild(t.Context(), running); err != nil || path == "" {
			t.Fatal(path, err)
		}
	}
	clear(m.released)
}

func (m *model) compare(t *testing.T, dir string) {
	t.Helper()
	if leases := len(list(t, openFor(t, dir, 0))) + len(list(t, openFor(t, dir, 1))); leases != len(m.held) {
		t.Errorf("%d leases, want %d", leases, len(m.held))
	}
	for whom, want := range m.held {
		lease, ok, err := openFor(t, dir, whom).Find(attachment(whom))
		if err != nil || !ok || !slices.Equal(lease.Addresses, want) {
			t.Errorf("%d holds %v, %t, %v; want %v", whom, lease.Addresses, ok, err, want)
		}
	}
}
