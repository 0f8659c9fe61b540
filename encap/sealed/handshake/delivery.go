package handshake

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/quic-go/quic-go"
)

// delivery finds out whether runs of datagrams (udp(7), UDP_SEGMENT) arrive at a peer: some
// kernels and cards lose or mangle them without an error. The peer reports how many datagrams
// have arrived. If about as many are lost as were in runs, and then almost none of those sent
// singly, runs are to blame, and no more are sent. Loss that ended meanwhile looks the same, so
// runs are tried again, ever more rarely: what is under way then stalls for a second or two.
type delivery struct {
	stage     stage
	asked     counts        // when the peer was last asked
	judged    counts        // that the last verdict was about
	arrived   uint64        // then
	known     bool          // judged and arrived are of this connection
	pause     time.Duration // after a suspicion that proved wrong
	recheck   time.Duration // after one that proved right
	notBefore time.Time     // when the next one may be raised, or runs are tried again
}

// counts are datagrams that were sent to the peer, and how many of them in runs.
type counts struct{ sent, inRuns uint64 }

type stage int

const (
	inRuns   stage = iota // the normal case
	singly                // many were lost in runs: do fewer get lost without?
	runsLost              // they do: no runs
	again                 // after a while: do many still get lost in runs?
)

const (
	// How many datagrams a verdict needs at the least: of runs, or of those sent singly. TCP
	// that stalls sends a few runs of two or three a second, and single ones between them.
	enoughInRuns = 8
	enoughSingly = 32

	firstPause   = time.Minute
	lastPause    = time.Hour
	firstRecheck = 10 * time.Minute
	lastRecheck  = 24 * time.Hour
)

// enough reports whether so many datagrams were sent since the last verdict that another one
// can be given.
func (d *delivery) enough(now counts) bool {
	if d.stage == singly {
		return now.sent-d.judged.sent >= enoughSingly
	}
	return now.inRuns-d.judged.inRuns >= enoughInRuns
}

// tryAgain has runs sent again if it is time to, and reports whether it has.
func (d *delivery) tryAgain(now time.Time) bool {
	if d.stage != runsLost || now.Before(d.notBefore) {
		return false
	}
	d.stage, d.known = again, false
	return true
}

// due reports whether to ask the peer what has arrived.
func (d *delivery) due(sent counts) bool {
	return d.stage != runsLost && (!d.known || d.enough(sent))
}

// sendsRuns reports whether the peer is sent runs.
func (d *delivery) sendsRuns() bool { return d.stage == inRuns || d.stage == again }

// judge takes in how many of the datagrams that were counted when the peer was asked have
// arrived.
func (d *delivery) judge(arrived uint64, now time.Time) {
	if !d.known || d.asked.sent < d.judged.sent || arrived < d.arrived { // or the peer was restarted
		d.known, d.judged, d.arrived = true, d.asked, arrived
		return
	}
	if !d.enough(d.asked) || d.stage == runsLost {
		return
	}
	sent, runs := d.asked.sent-d.judged.sent, d.asked.inRuns-d.judged.inRuns
	lost := sent - min(arrived-d.arrived, sent)
	// Of some runs the first datagram arrives. Where all but a few are single ones, those
	// that any path loses now and then must not count against them.
	likeRuns, few := lost >= runs/2 && lost > sent/16, lost <= sent/32
	d.judged, d.arrived = d.asked, arrived
	switch {
	case d.stage == inRuns && likeRuns && now.After(d.notBefore):
		d.stage = singly
	case d.stage == inRuns:
	case d.stage == singly && few, d.stage == again && likeRuns:
		d.loseRuns(now)
	default: // something else loses datagrams
		d.stage = inRuns
		d.pause = min(max(2*d.pause, firstPause), lastPause)
		d.notBefore = now.Add(d.pause)
	}
}

// loseRuns notes that runs get lost, until they are tried again.
func (d *delivery) loseRuns(now time.Time) {
	d.stage = runsLost
	d.recheck = min(max(2*d.recheck, firstRecheck), lastRecheck)
	d.notBefore = now.Add(d.recheck)
}

// A question is the number of datagrams that this node has sent to the peer, and the report
// repeats it and adds how many have arrived. Both go as datagrams of QUIC (RFC 9221): the
// next one makes up for one that is lost.
const (
	askArrived  = 1
	sayArrived  = 2
	questionLen = 1 + 8
	reportLen   = 1 + 8 + 8

	// A peer that asks more often gets no report.
	mostOftenAsked = 100 * time.Millisecond
)

// ask asks the peer what has arrived, unless the budget for such questions is used up. The
// manager's lock is held.
func (m *Manager) ask(l *link, now time.Time, budget *int) {
	sent := counts{l.seen.SentPackets, l.seen.SentInRuns}
	if *budget == 0 || l.conn == nil || m.Runs == nil || !m.Runs() {
		return
	}
	if l.delivery.tryAgain(now) {
		l.peer.SendSingly(false)
	}
	if !l.delivery.due(sent) {
		return
	}
	*budget--
	l.delivery.asked = sent
	question := binary.BigEndian.AppendUint64([]byte{askArrived}, sent.sent)
	_ = l.conn.SendDatagram(question) // a peer of an older version takes none
}

// converse answers the peer's questions and takes in its reports until the connection ends.
func (m *Manager) converse(l *link, conn *quic.Conn) {
	var answered time.Time
	for {
		b, err := conn.ReceiveDatagram(context.Background())
		if err != nil {
			return
		}
		now := time.Now()
		switch {
		case len(b) == questionLen && b[0] == askArrived && now.Sub(answered) >= mostOftenAsked:
			answered = now
			b[0] = sayArrived
			_ = conn.SendDatagram(binary.BigEndian.AppendUint64(b, l.peer.Traffic().ReceivedPackets))
		case len(b) == reportLen && b[0] == sayArrived:
			m.takeReport(l, conn, binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:]), now)
		case len(b) > inquiryHeader && len(b) <= inquiryHeader+MaxQuestion && b[0] == askInquiry:
			m.answerInquiry(l, conn, b)
		case len(b) > inquiryHeader && len(b) <= inquiryHeader+MaxAnswer && b[0] == sayInquiry:
			m.inquiries.take(conn, binary.BigEndian.Uint32(b[1:]), b[inquiryHeader:])
		}
	}
}

func (m *Manager) takeReport(l *link, conn *quic.Conn, sent, arrived uint64, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := &l.delivery
	if l.conn != conn || sent != d.asked.sent { // of an earlier question
		return
	}
	before := d.stage
	d.judge(arrived, now)
	l.peer.SendSingly(!d.sendsRuns())
	switch {
	case before == singly && d.stage == runsLost:
		m.log.Warn("datagrams in runs lost, runs disabled", "peer", l.node.Name)
	case before == again && d.stage == inRuns:
		m.log.Info("datagrams in runs arrive again", "peer", l.node.Name)
	}
}
