package handshake

// CloseIdle closes all connections, as if no packets had passed for long enough.
func (m *Manager) CloseIdle() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.links {
		l.close(codeIdle)
		l.active = l.active.Add(-2 * idle)
	}
}
