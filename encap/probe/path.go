package probe

import (
	"math/bits"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"weft/peer"
)

const (
	// smallest is the size in bytes of the smallest packets that a path is expected to carry: the
	// underlay's are of 576 bytes at least (RFC 791 §3.1), less the largest overhead.
	smallest = 576 - 80

	// suspicious is how many rounds in a row large probes of a lane must be lost while small ones
	// arrive before they are taken to be too large.
	suspicious = 3

	// grid is how many sizes a search tries at once, and copies how often each: what gets lost
	// for another reason does not count.
	grid   = 16
	copies = 3

	// raiseAfter is after how long a path of a smaller MTU is tried with larger probes.
	raiseAfter = time.Minute

	// A round ends when all is answered, or after four round trips and some time for a busy
	// node, within these limits.
	shortestRound = 250 * time.Millisecond
	longestRound  = 2 * time.Second

	// A peer that has shown no probe of its own and no reply is probed ever more rarely: it may be of a
	// version that knows no probes.
	rarest = 30 * time.Second

	// dead is how many rounds in a row a lane must get no reply while others do before it is taken to
	// be cut off: random loss of a tenth does that once in ten years.
	dead = 5

	// LossyFrom is the part of small probes from whose loss on pods suffer. It is smoothed over some
	// lossRounds rounds, however many lanes there are.
	LossyFrom  = 0.1
	lossRounds = 32

	// surveyPause is the time between the rounds of a survey.
	surveyPause = 200 * time.Millisecond
)

// path is what is known of the way to a peer. It sends nothing, and reads no clock.
type path struct {
	peer    *peer.Peer
	answers *rate.Limiter // of the peer's requests

	largest int // bytes: what pods send at the most
	mtu     int // bytes: what arrives, as far as is known
	heard   time.Time
	rtt     time.Duration // smoothed; zero if not known
	history history
	loss    float64 // smoothed, of the rounds in which something arrived; from 0 to 1

	due    time.Time // of the next round
	raise  time.Time // when larger probes are tried again
	misses int       // rounds in a row without any reply
	knows  bool      // the peer knows probes, as a message of it has shown
	failed []int     // by lane: rounds in a row in which only small probes arrived
	lost   []int     // by lane: rounds in a row in which no probe arrived, while others' did
	narrow int       // the lane in which the MTU was found
	runs   runs

	round  round
	search *search // under way, or nil
	survey *survey // that is waited for, or nil
}

// shot is one request, of a size from a lane, or a run of them.
type shot struct {
	lane, size int
	run        bool
}

// datagrams returns how many it has.
func (s shot) datagrams() int {
	if s.run {
		return runLen
	}
	return 1
}

// round is a set of requests that are sent at once and judged together.
type round struct {
	began, until time.Time
	ids          []uint64
	open         int // without a reply
	replies      map[shot]int
	runs         int // so many were sent
}

func (r *round) underWay() bool { return r.replies != nil }
func (r *round) complete() bool { return r.underWay() && r.open == 0 }

// unsent notes that a shot can't be sent.
func (r *round) unsent(s shot) {
	r.open -= s.datagrams()
	if s.run {
		r.runs--
	}
}

// search looks for the largest size that arrives: low does, high does not.
type search struct {
	lane, low, high int
	known           bool // low has arrived
	sizes           []int
}

// history is of the last 64 small probes.
type history struct {
	lost uint64 // a bit for each
	n    int
}

func (h *history) add(lost bool) {
	h.lost <<= 1
	if lost {
		h.lost |= 1
	}
	h.n = min(h.n+1, 64)
}

// ratio returns how much was lost, from 0 to 1.
func (h *history) ratio() float64 {
	if h.n == 0 {
		return 0
	}
	return float64(bits.OnesCount64(h.lost)) / float64(h.n)
}

func newPath(lanes, largest int) *path {
	return &path{largest: largest, mtu: largest, failed: make([]int, lanes), lost: make([]int, lanes)}
}

// restore has the path carry packets of up to mtu bytes, or no runs, as another process has found out; 0
// if that has found nothing out of the MTU.
func (p *path) restore(mtu int, runsLost bool, now time.Time) {
	p.runs.lost = runsLost
	if mtu >= smallest && mtu < p.mtu {
		p.mtu, p.raise = mtu, now.Add(raiseAfter)
	}
}

// restart forgets the rounds and what they have shown of the MTU that doesn't hold any more: that of
// this node's device has changed, or the peer is elsewhere.
func (p *path) restart(largest int, moved bool) {
	if p.mtu == p.largest || p.mtu > largest || moved {
		p.mtu = largest // until it shows that less arrives
	}
	if moved {
		p.heard, p.rtt, p.history, p.loss, p.runs = time.Time{}, 0, history{}, 0, runs{}
	}
	p.largest, p.search, p.round, p.misses, p.due = largest, nil, round{}, 0, time.Time{}
	clear(p.failed)
	clear(p.lost)
}

// next begins a round, and returns what it sends: with runs if packets go out in runs.
func (p *path) next(now time.Time, withRuns bool) []shot {
	if p.search == nil && p.mtu < p.largest && p.misses == 0 && !now.Before(p.raise) {
		p.searchAbove(now)
	}
	var shots []shot
	p.round = round{began: now, replies: map[shot]int{}}
	if p.search != nil {
		for range copies {
			for _, size := range p.search.next() {
				shots = append(shots, shot{lane: p.search.lane, size: size})
			}
		}
	} else {
		for lane, failed := range p.failed {
			n, runs := 1, withRuns && lane == p.runs.lane
			if failed > 0 || runs && p.runs.failed > 0 {
				n += copies // unless it is congestion, some of several arrive
			}
			shots = append(shots, shot{lane: lane, size: messageLen})
			shots = append(shots, slices.Repeat([]shot{{lane: lane, size: p.mtu}}, n)...)
			if runs {
				p.round.runs = n
				shots = append(shots, slices.Repeat([]shot{{lane: lane, size: p.mtu, run: true}}, n)...)
			}
		}
	}
	for _, s := range shots {
		p.round.open += s.datagrams()
	}
	last := longestRound / 2
	if p.rtt > 0 {
		last = min(max(4*p.rtt+tick, shortestRound), longestRound)
	}
	p.round.until = now.Add(last)
	return shots
}

// answered takes in a reply.
func (p *path) answered(s shot, took time.Duration, now time.Time) {
	p.heard, p.knows = now, true
	p.round.open--
	p.round.replies[s]++
	if s.size != messageLen {
		return
	}
	if p.rtt == 0 {
		p.rtt = took
	}
	p.rtt += (took - p.rtt) / 8 // RFC 6298 §2
	p.survey.answered(took)
}

// judge ends the round, and reports whether the next one is due soon.
func (p *path) judge(now time.Time) (again bool) {
	r := p.round
	p.round = round{}
	if p.search != nil {
		return p.judgeSearch(r.replies, now)
	}
	return p.judgeCheck(r, now)
}

// judgeCheck judges a round of a small and a large probe from each lane, and runs from one.
func (p *path) judgeCheck(r round, now time.Time) (again bool) {
	suspect, worst := -1, 0
	lost := 0
	for lane := range p.failed {
		small, large := r.replies[shot{lane: lane, size: messageLen}] > 0, r.replies[shot{lane: lane, size: p.mtu}] > 0
		p.history.add(!small)
		if !small {
			lost++
		}
		p.survey.sent(small)
		switch {
		case large:
			p.failed[lane], p.lost[lane] = 0, 0
		case small:
			p.failed[lane]++
			p.lost[lane] = 0
		default:
			p.lost[lane]++
		}
		if p.failed[lane] > worst {
			suspect, worst = lane, p.failed[lane]
		}
	}
	runsSuspect := p.judgeRuns(r)
	if len(r.replies) == 0 {
		p.misses++
		clear(p.lost)
		p.due = r.began.Add(p.pause())
		return p.goOnSurvey(now)
	}
	p.misses, p.due = 0, r.began.Add(interval)
	p.loss += (float64(lost)/float64(len(p.failed)) - p.loss) / lossRounds
	switch {
	case worst >= suspicious:
		p.search = &search{lane: suspect, low: smallest, high: p.mtu + 1}
	case worst == 0 && !runsSuspect:
		return p.goOnSurvey(now)
	}
	p.due = now
	return true
}

// pause is how long to wait after rounds without any reply.
func (p *path) pause() time.Duration {
	if !p.knows {
		return min(interval<<min(p.misses, 10), rarest)
	}
	return interval
}

// judgeSearch judges a round of several sizes from one lane.
func (p *path) judgeSearch(replies map[shot]int, now time.Time) (again bool) {
	s := p.search
	largest := 0
	for _, size := range s.sizes {
		if replies[shot{lane: s.lane, size: size}] > 0 {
			largest = size
		}
	}
	if largest == 0 && !s.known || !s.sharp(largest, replies) {
		p.search, p.due = nil, now.Add(interval)
		clear(p.failed)
		return p.goOnSurvey(now)
	}
	s.narrow(largest)
	p.due = now
	if s.high-s.low > 1 {
		return true
	}
	p.mtu, p.narrow, p.search = s.low, s.lane, nil
	p.raise = now.Add(raiseAfter)
	clear(p.failed)
	return true // the other lanes must carry it too
}

// searchAbove has larger probes tried.
func (p *path) searchAbove(now time.Time) {
	p.search = &search{lane: p.narrow, low: p.mtu, high: p.largest + 1, known: true}
	p.raise = now.Add(raiseAfter)
}

// next returns the sizes to try, in ascending order.
func (s *search) next() []int {
	s.sizes = s.sizes[:0]
	if !s.known {
		s.sizes = append(s.sizes, s.low)
	}
	for i := 1; i <= grid; i++ {
		size := s.low + (s.high-s.low)*i/(grid+1)
		if i == grid {
			size = s.high - 1
		}
		if size > s.low && (len(s.sizes) == 0 || size > s.sizes[len(s.sizes)-1]) {
			s.sizes = append(s.sizes, size)
		}
	}
	return s.sizes
}

// sharp says whether what arrived looks like a limit: up to the largest size that was answered nearly
// all arrives. Congestion loses datagrams of any size, and large ones more often, as a queue that is
// full to some bytes has room for small ones.
func (s *search) sharp(largest int, replies map[shot]int) bool {
	sent, arrived := 0, 0
	for _, size := range s.sizes {
		if size > largest {
			break
		}
		n := replies[shot{lane: s.lane, size: size}]
		if n == 0 {
			return false
		}
		sent, arrived = sent+copies, arrived+n
	}
	return arrived*3 >= sent*2
}

// narrow takes in the largest size that arrived, or 0.
func (s *search) narrow(largest int) {
	if largest > 0 {
		s.low, s.known = largest, true
	}
	for _, size := range s.sizes {
		if size > s.low {
			s.high = size
			return
		}
	}
}
