package probe

import (
	"context"
	"fmt"
	"time"
)

// Path is what is known of the way to a peer.
type Path struct {
	// MTU is the size in bytes of the largest packets that arrive, as far as is known, and Largest
	// that of the largest that pods send.
	MTU, Largest int

	// Heard is when the peer last answered; zero if it never did.
	Heard time.Time

	// Unanswered says that the peer answers no probe, though packets leave for it, and Silent that it
	// knows probes too: it has answered one before, or has sent some itself.
	Unanswered, Silent bool

	// Dead are the lanes whose probes get lost, while those of others are answered.
	Dead []int

	// RunsLost says that runs of datagrams don't arrive, and single ones do.
	RunsLost bool

	// RTT is the smoothed round-trip time, or zero.
	RTT time.Duration

	// Loss is the part of the last probes that got no answer, from 0 to 1.
	Loss float64

	// Lossy says that so much gets lost that pods suffer (LossyFrom).
	Lossy bool
}

// silentAfter is how many rounds in a row without a reply say that a peer answers nothing.
const silentAfter = 3

// Paths returns what is known of all paths, by the peers' names.
func (p *Prober) Paths() map[string]Path {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := *p.known.Load()
	all := make(map[string]Path, len(known))
	for name, path := range known {
		all[name] = path.describe()
	}
	return all
}

func (p *path) describe() Path {
	d := Path{MTU: p.mtu, Largest: p.largest, Heard: p.heard, RTT: p.rtt, Loss: p.history.ratio(), RunsLost: p.runs.lost, Unanswered: p.misses >= silentAfter}
	d.Silent, d.Lossy = d.Unanswered && p.knows, p.loss >= LossyFrom && !d.Unanswered
	for lane, rounds := range p.lost {
		if rounds >= dead {
			d.Dead = append(d.Dead, lane)
		}
	}
	return d
}

// Narrow returns the MTU in bytes of those paths that carry less than pods send, by the peers' names.
func (p *Prober) Narrow() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	narrow := map[string]int{}
	for name, path := range *p.known.Load() {
		if path.mtu < path.largest {
			narrow[name] = path.mtu
		}
	}
	return narrow
}

// Survey is what probing a path thoroughly has shown.
type Survey struct {
	Path

	// Sent small probes, and how many of them were answered.
	Sent, Answered int

	// RTT of the answered ones.
	Min, Average, Max time.Duration
}

// survey is one that is under way. A nil survey counts nothing.
type survey struct {
	Survey

	left  int // rounds
	above bool
	total time.Duration
	done  chan struct{}
}

func (s *survey) sent(answered bool) {
	if s == nil {
		return
	}
	s.Sent++
	if answered {
		s.Answered++
	}
}

func (s *survey) answered(took time.Duration) {
	if s == nil {
		return
	}
	if s.Min == 0 || took < s.Min {
		s.Min = took
	}
	s.Max = max(s.Max, took)
	s.total += took
}

// Survey probes the path to a peer in so many rounds, each from every lane, looks how large packets
// may be, and returns what that shows.
func (p *Prober) Survey(ctx context.Context, name string, rounds int) (Survey, error) {
	p.mu.Lock()
	path := (*p.known.Load())[name]
	if path == nil {
		p.mu.Unlock()
		return Survey{}, fmt.Errorf("%s answers no probes: it is a kernel VXLAN device, or no peer", name)
	}
	s := path.survey
	if s == nil {
		s = &survey{left: rounds, done: make(chan struct{})}
		path.survey, path.due = s, time.Time{}
		p.running[path] = struct{}{}
		select {
		case p.asked <- struct{}{}:
		default: // it looks at all that are running
		}
	}
	p.mu.Unlock()
	select {
	case <-s.done:
		return s.Survey, nil
	case <-ctx.Done():
		return Survey{}, fmt.Errorf("probe %s: %w", name, context.Cause(ctx))
	}
}

// goOnSurvey begins the survey's next step, if there is one, and reports whether a round is due soon.
func (p *path) goOnSurvey(now time.Time) bool {
	s := p.survey
	if s == nil {
		return false
	}
	s.left--
	switch {
	case s.left > 0:
		p.due = now.Add(surveyPause)
		return true
	case p.misses == 0 && p.mtu < p.largest && !s.above:
		s.above, p.due = true, now
		p.searchAbove(now)
		return true
	}
	p.endSurvey()
	return false
}

// endSurvey hands the survey to those who wait for it.
func (p *path) endSurvey() {
	s := p.survey
	if s == nil {
		return
	}
	p.survey = nil
	s.Path = p.describe()
	if s.Answered > 0 {
		s.Average = s.total / time.Duration(s.Answered)
	}
	close(s.done)
}
