package sealed

// The limits of a key.
const (
	RekeyAfter   = rekeyAfter
	CounterLimit = counterLimit
)

// SetCounter has a lane go on as if it had sealed n datagrams with the present key.
func (p *Peer) SetCounter(lane int, n uint64) { p.sending.Load().sealer(lane).next = n }

// Secrets returns where the epoch holds its secrets.
func (e *Epoch) Secrets() *Secrets { return e.secrets }

// Holds reports whether the epoch has a cipher of a lane, or makes one.
func (e *Epoch) Holds(lane int) bool { return e.sealer(lane) != nil || e.opener(lane) != nil }
