package etcd

import (
	"net/netip"
	"time"

	"weft/control"
)

// contest is about this node's entry, with another machine that writes it too: two of them must
// not overwrite each other as fast as they can.
type contest struct {
	retry control.Retry[string] // of the entry, as this node has written it last
	at    time.Time             // when that was
	loss  time.Time             // when another one was found in its place
}

func newContest() contest {
	// A pause is random, and half as long at least.
	return contest{retry: control.Retry[string]{Backoff: control.Backoff{Shortest: 2 * time.Second, Longest: 5 * time.Second}}}
}

// wrote takes notice of what this node has written; empty if its entry was right.
func (c *contest) wrote(entry string) {
	if entry == "" {
		return
	}
	if entry != c.retry.Last || time.Since(c.at) > stableAfter {
		c.retry.Reset()
	}
	c.retry.Tried(entry)
	c.at = time.Now()
}

// lost reports whether the entry that must be written was written not long ago. If it was
// long ago, the other machine need not go on: etcd may have been restored from a backup.
func (c *contest) lost(entry string) bool {
	if entry == "" || entry != c.retry.Last || time.Since(c.at) > stableAfter {
		return false
	}
	c.loss = time.Now()
	return true
}

// over reports whether no other machine has written the entry for a while.
func (c *contest) over() bool { return time.Since(c.loss) > stableAfter }

// anotherMachine returns the endpoint in this node's entry, if the entry is that of another
// machine than the one that self describes.
func (l *listing) anotherMachine(self control.Node) (netip.AddrPort, bool) {
	e, ok := l.entries[self.Name]
	return e.node.Endpoint, ok && e.err == nil && (e.node.Endpoint != self.Endpoint || e.node.Key != self.Key)
}
