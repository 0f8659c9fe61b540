package sealed

// Traffic is what passed with a peer, of the pods' packets.
type Traffic struct {
	SentPackets, SentBytes         uint64
	SentInRuns                     uint64 // packets whose datagrams went out in runs
	ReceivedPackets, ReceivedBytes uint64

	// Refused are datagrams that were replayed, or sealed with another key.
	Refused uint64
}

func (t Traffic) plus(o Traffic) Traffic {
	return Traffic{t.SentPackets + o.SentPackets, t.SentBytes + o.SentBytes, t.SentInRuns + o.SentInRuns,
		t.ReceivedPackets + o.ReceivedPackets, t.ReceivedBytes + o.ReceivedBytes, t.Refused + o.Refused}
}

func (e *Epoch) traffic() (t Traffic) {
	for lane := range maxLanes {
		if s := e.senders[lane].Load(); s != nil {
			t = t.plus(Traffic{SentPackets: s.packets.Load(), SentBytes: s.bytes.Load(), SentInRuns: s.inRuns.Load()})
		}
		if o := e.receivers[lane].Load(); o != nil {
			t = t.plus(Traffic{ReceivedPackets: o.packets.Load(), ReceivedBytes: o.bytes.Load(), Refused: o.refused.Load()})
		}
	}
	return t
}

// Traffic returns what has passed until now.
func (p *Peer) Traffic() Traffic {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.past
	for _, e := range p.epochs {
		t = t.plus(e.traffic())
	}
	return t
}
