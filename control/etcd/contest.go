package etcd

import (
	"net/netip"
	"time"

	"weft/control"
)

// contest is about this node's entry, with somebody else who writes it too: two of them must
// not overwrite each other as fast as they can.
type contest struct {
	entry     string    // as this node has written it last
	at        time.Time // when that was
	notBefore time.Time // when the same may be written again
	pause     control.Backoff
	loss      time.Time // when another one was found in its place
}

func newContest() contest {
	// A pause is random, and half as long at least.
	return contest{pause: control.Backoff{Shortest: 2 * time.Second, Longest: 5 * time.Second}}
}

// wrote takes notice of what this node has written; empty if its entry was right.
func (c *contest) wrote(entry string) {
	if entry == "" {
		return
	}
	if entry != c.entry || time.Since(c.at) > stableAfter {
		c.pause.Reset()
	}
	c.entry, c.at = entry, time.Now()
	c.notBefore = c.at.Add(c.pause.Wait())
}

// lost reports whether the entry that must be written was written not long ago. If it was
// long ago, there need be nobody who goes on: etcd may have been restored from a backup.
func (c *contest) lost(entry string) bool {
	if entry == "" || entry != c.entry || time.Since(c.at) > stableAfter {
		return false
	}
	c.loss = time.Now()
	return true
}

// wait is how long an entry must not be written yet. What this node has not said before can
// be written at once.
func (c *contest) wait(entry string) time.Duration {
	if entry != c.entry {
		return 0
	}
	return time.Until(c.notBefore)
}

// over reports whether nobody else has written the entry for a while.
func (c *contest) over() bool { return time.Since(c.loss) > stableAfter }

// anotherMachine returns the endpoint in this node's entry, if the entry is that of another
// machine than the one that self describes.
func (l *listing) anotherMachine(self control.Node) (netip.AddrPort, bool) {
	e, ok := l.entries[self.Name]
	return e.node.Endpoint, ok && e.err == nil && (e.node.Endpoint != self.Endpoint || e.node.Key != self.Key)
}
