package probe

const (
	// runLen is how many datagrams the runs of probes have.
	runLen = 4

	// runsArrive is how many rounds in a row runs must arrive until they count as repaired: a minute, in
	// which each lane has its turn.
	runsArrive = 32
)

// runs is whether runs of datagrams (udp(7), UDP_SEGMENT) arrive at a peer. Some kernels and cards lose
// them without an error, all or but for the first datagram of each. The lanes take turns: usually all
// leave by one card.
type runs struct {
	lane   int  // whose turn it is
	failed int  // its rounds in a row in which single datagrams of the same size arrived, and runs did not
	lost   bool // packets are to go out singly
	good   int  // rounds in a row in which they arrived since
}

// judge takes in how many datagrams arrived of n runs, and of at least n single ones of the same size, and
// reports whether that is suspicious.
func (r *runs) judge(n, arrived, singles, lanes int) bool {
	switch {
	case n == 0: // none go out, or this one could not be sent
		r.failed = 0
	case arrived > n: // more than the first of each
		r.failed = 0
		r.good++
		if r.good >= runsArrive {
			r.lost = false
		}
	case 4*singles < 3*n: // single ones get lost, too
		r.failed = 0
	case r.lost:
		r.good = 0
	default:
		r.failed++
		if r.failed >= suspicious {
			*r = runs{lane: r.lane, lost: true}
		}
	}
	if r.failed > 0 {
		return true
	}
	r.lane = (r.lane + 1) % lanes
	return false
}

// judgeRuns judges the runs of a round, and reports whether they are suspicious.
func (p *path) judgeRuns(r round) bool {
	single := shot{lane: p.runs.lane, size: p.mtu}
	run := single
	run.run = true
	return p.runs.judge(r.runs, r.replies[run], r.replies[single], len(p.failed))
}

// RunsLost returns the peers, by name, at which runs of datagrams don't arrive, and single ones do.
func (p *Prober) RunsLost() map[string]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	lost := map[string]bool{}
	for name, path := range *p.known.Load() {
		if path.runs.lost {
			lost[name] = true
		}
	}
	return lost
}
