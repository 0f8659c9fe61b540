package page

import (
	"cmp"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"
	"time"

	"weft/internal/status"
	"weft/internal/units"
)

// peer is a peer as the page shows it.
type peer struct {
	Level              level
	Name, State        string
	Why                string // what is wrong, if something is
	Sent, Received     string // rates; "" if they are not known
	RTT, Loss, MTU     string // "" if they are not known
	Endpoint, Prefixes string
	Heard              moment

	status         string // State without what else is wrong
	unreachable    bool
	sent, received uint64 // bytes a second
}

// peersOf lists those with problems first, then the busiest.
func peersOf(r status.Report, now time.Time) []peer {
	all := make([]peer, len(r.Peers))
	for i, p := range r.Peers {
		all[i] = peerOf(p, now)
	}
	slices.SortStableFunc(all, func(a, b peer) int {
		return cmp.Or(cmp.Compare(b.rank(), a.rank()), cmp.Compare(b.sent+b.received, a.sent+a.received), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// rank orders peers by how serious their trouble is.
func (p peer) rank() int {
	switch p.Level {
	case bad:
		return 2
	case warn:
		return 1
	}
	return 0
}

func peerOf(p status.Peer, now time.Time) peer {
	state := p.StateAt(now)
	out := peer{
		Level: good, Name: shown(p.Name, mostName), State: state, status: state,
		Endpoint: p.Endpoint.String(), Prefixes: prefixesOf(p), RTT: roundTrip(p.RoundTrip()),
		Heard: momentOf(p.HeardAt(), now),
	}
	if p.Rates != nil {
		out.sent, out.received = p.Rates.SentBytes, p.Rates.ReceivedBytes
		out.Sent, out.Received = units.BitRate(float64(out.sent)), units.BitRate(float64(out.received))
	}
	if path := p.Probed(); path != nil {
		out.Loss, out.MTU = fmt.Sprintf("%.0f %%", 100*path.Loss), count(uint64(path.MTU))
	}
	out.judge(p)
	return out
}

// judge says what is wrong with a peer.
func (out *peer) judge(p status.Peer) {
	const lossy = 0.05
	path := p.Probed()
	trouble := func(l level, text string) { out.Level, out.Why = l, shown(text, mostReason) }
	switch {
	case p.Unreachable():
		out.unreachable = true
		trouble(bad, p.Reason())
	case p.Path != nil && p.Path.Silent:
		out.State = "data path silent"
		trouble(bad, "it has keys, but does not answer probes on the data path")
	case p.Link != nil && p.KeysOverdue:
		trouble(warn, "the data keys are too old: "+p.Reason())
	case path != nil && path.Loss >= lossy:
		trouble(warn, "probes get lost on the way")
	case path != nil && path.MTU < path.Largest:
		trouble(warn, fmt.Sprintf("the path carries packets of %d bytes, and pods may send %d", path.MTU, path.Largest))
	case p.LosesRuns():
		trouble(warn, "datagrams that are sent in one message get lost, so weftd sends each alone")
	case p.Link != nil && p.Error != "":
		trouble(warn, p.Error)
	case out.State != "up":
		out.Level = neutral
	}
}

func prefixesOf(p status.Peer) string {
	const most = 4
	var all []string
	for _, prefix := range p.Prefixes[:min(len(p.Prefixes), most)] {
		all = append(all, prefix.String())
	}
	if more := len(p.Prefixes) - most; more > 0 {
		all = append(all, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(all, ", ")
}

// rest is several peers in one line.
type rest struct {
	Count, States, Sent, Received string
	Level                         level

	unreachable    int
	sent, received uint64
}

func restOf(peers []peer) rest {
	if len(peers) == 0 {
		return rest{}
	}
	out := rest{Count: count(uint64(len(peers))), Level: good}
	counts := map[string]int{}
	worst := 0
	for _, p := range peers {
		counts[p.status]++
		out.sent += p.sent
		out.received += p.received
		if p.unreachable {
			out.unreachable++
		}
		if p.rank() > worst {
			worst, out.Level = p.rank(), p.Level
		}
	}
	var states []string
	for _, state := range slices.Sorted(maps.Keys(counts)) {
		states = append(states, count(uint64(counts[state]))+" "+state)
	}
	out.States, out.Sent, out.Received = strings.Join(states, ", "), units.BitRate(float64(out.sent)), units.BitRate(float64(out.received))
	return out
}

// Bounds of the picture.
const (
	mostCards = 12

	// mostTroubled of them may be peers with problems while others are busy.
	mostTroubled = 8
)

// card is a peer in the picture, or all those that have no card. It stands left or right of this node.
type card struct {
	peer
	Rest *rest
	Side string
	Line line
}

// line is in a square of 100 by 100, from its middle to the card's edge.
type line struct {
	EdgeX, BendX, Y float64
	Width           int // 1 to 6, by the traffic
}

func cardsOf(peers []peer) (cards []card) {
	chosen, left := choose(peers)
	for _, p := range chosen {
		cards = append(cards, card{peer: p, Line: line{Width: width(p.sent + p.received)}})
	}
	if len(left) > 0 {
		r := restOf(left)
		cards = append(cards, card{peer: peer{Level: r.Level, State: r.States}, Rest: &r, Line: line{Width: width(r.sent + r.received)}})
	}
	rows := (len(cards) + 1) / 2
	for i := range cards {
		c := &cards[i]
		c.Side, c.Line.EdgeX = "left", 0
		if i%2 == 1 {
			c.Side, c.Line.EdgeX = "right", 100
		}
		c.Line.BendX, c.Line.Y = (c.Line.EdgeX+50)/2, 100*(float64(i/2)+0.5)/float64(rows)
	}
	return cards
}

// choose returns the peers that get a card: those with problems and the busiest.
func choose(peers []peer) (chosen, left []peer) {
	if len(peers) <= mostCards {
		return peers, nil
	}
	const most = mostCards - 1 // the last card is for the rest
	troubled := 0
	for troubled < len(peers) && peers[troubled].rank() > 0 {
		troubled++
	}
	first := min(troubled, mostTroubled)
	busiest := peers[troubled:min(len(peers), troubled+most-first)]
	first = min(troubled, most-len(busiest)) // if there are not enough others
	chosen = slices.Concat(peers[:first], busiest)
	return chosen, slices.Concat(peers[first:troubled], peers[troubled+len(busiest):])
}

// width grows by one each time that the traffic grows eightfold, from a kilobyte a second on.
func width(rate uint64) int { return min(1+bits.Len64(rate>>10)/3, 6) }
