package daemon

import (
	"weft/daemon/handover"
	"weft/drop"
	"weft/router"
)

// counters returns what the data path has counted, for the next process.
func (p *path) counters() (c handover.Counters) {
	for i, s := range p.router.Lanes() {
		c.Lanes = append(c.Lanes, handover.LaneCounters{Outbound: s.Outbound, Inbound: s.Inbound, Drops: dropsByName(s), Joined: p.conns[i].Joined()})
	}
	if p.keys != nil {
		c.Waited = p.keys.peers.Waited()
	}
	return c
}

// restore has the data path go on from what another one has counted. Its lanes have not begun.
func (p *path) restore(c handover.Counters) {
	lanes := make([]router.Stats, min(len(c.Lanes), len(p.conns)))
	for i := range lanes {
		from := c.Lanes[i]
		lanes[i] = router.Stats{Outbound: from.Outbound, Inbound: from.Inbound}
		for name, n := range from.Drops {
			if reason := drop.Parse(name); reason != drop.None { // or another version has it
				lanes[i].Drops[reason] = n
			}
		}
		p.conns[i].Restore(from.Joined)
	}
	p.router.Restore(lanes)
	if p.keys != nil {
		p.keys.peers.Restore(c.Waited)
	}
}
