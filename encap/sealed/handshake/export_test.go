package handshake

import "time"

// Hurry has a minute last a fraction of a second. It is called before Run.
func (m *Manager) Hurry() {
	m.timing = timing{idle: 400 * time.Millisecond, overlap: 300 * time.Millisecond, lifetime: 1500 * time.Millisecond, tick: 20 * time.Millisecond}
}

// CloseIdle closes all connections, as if no packets had passed for long enough.
func (m *Manager) CloseIdle() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.links {
		l.close(codeIdle)
		l.active = l.active.Add(-2 * m.timing.idle)
	}
}
