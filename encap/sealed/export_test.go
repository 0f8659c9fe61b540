package sealed

// The limits of a key.
const (
	RekeyAfter   = rekeyAfter
	CounterLimit = counterLimit
)

// Wear has a lane go on as if it had sealed n datagrams with the present key.
func (p *Peer) Wear(lane int, n uint64) { p.sending.Load().sealer(lane).next = n }
