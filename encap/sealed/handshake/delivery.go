package handshake

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/quic-go/quic-go"
)

// delivery finds out whether runs of datagrams (udp(7), UDP_SEGMENT) arrive at a peer: some
// kernels and cards lose or mangle them without an error. The peer reports how many datagrams
// have arrived. If many of those sent in runs are lost, few of those sent singly, and many
// again in runs, runs are to blame. Loss of any other cause doesn't follow that pattern.
type delivery struct {
	stage         stage
	known         bool          // sent and arrived are those of the last report
	sent, arrived uint64        // datagrams, until that report
	pause         time.Duration // after a suspicion that proved wrong
	notBefore     time.Time     // when the next one may be raised
}

type stage int

const (
	inRuns   stage = iota // as a rule
	singly                // many were lost in runs: do fewer get lost without?
	again                 // fewer did: do many get lost in runs again?
	runsLost              // they did: no runs from now on
)

const (
	// judged is how many datagrams a verdict needs at the least. TCP that stalls sends no
	// more than these in its first second.
	judged = 16

	firstPause = time.Minute
	lastPause  = time.Hour
)

// due reports whether to ask the peer how many of the datagrams sent until now have arrived.
func (d *delivery) due(sent uint64) bool {
	return d.stage != runsLost && (!d.known || sent-d.sent >= judged)
}

// judge takes in a report.
func (d *delivery) judge(sent, arrived uint64, now time.Time) {
	if !d.known || sent < d.sent || arrived < d.arrived { // or the peer was restarted
		d.known, d.sent, d.arrived = true, sent, arrived
		return
	}
	n := sent - d.sent
	if n < judged || d.stage == runsLost {
		return
	}
	lost := n - min(arrived-d.arrived, n)
	many, few := lost > n/4, lost <= n/8
	d.sent, d.arrived = sent, arrived
	switch {
	case d.stage == inRuns && many && now.After(d.notBefore):
		d.stage = singly
	case d.stage == inRuns:
	case d.stage == singly && few:
		d.stage = again
	case d.stage == again && many:
		d.stage = runsLost
	default: // something else loses datagrams
		d.stage = inRuns
		d.pause = min(max(2*d.pause, firstPause), lastPause)
		d.notBefore = now.Add(d.pause)
	}
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

// ask asks the peer what has arrived, unless too many others have been asked of late. The
// manager's lock is held.
func (m *Manager) ask(l *link, budget *int) {
	sent := l.seen.SentPackets
	if *budget == 0 || l.conn == nil || m.Runs == nil || !m.Runs() || !l.delivery.due(sent) {
		return
	}
	*budget--
	question := binary.BigEndian.AppendUint64([]byte{askArrived}, sent)
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
		}
	}
}

func (m *Manager) takeReport(l *link, conn *quic.Conn, sent, arrived uint64, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.conn != conn || sent > l.peer.Traffic().SentPackets {
		return
	}
	d := &l.delivery
	before := d.stage
	d.judge(sent, arrived, now)
	if d.stage == before {
		return
	}
	l.peer.SendSingly(d.stage == singly || d.stage == runsLost)
	if d.stage == runsLost {
		m.log.Warn("runs of datagrams lost, turned off", "peer", l.node.Name)
	}
}
