package stage

import (
	"bytes"
	"fmt"

	"weft/internal/testnet"
)

// Tally is what was told of frames that were recorded on the underlay while pods
// exchanged a marker.
type Tally struct {
	Sealed, QUIC, Others int // datagrams
	Readable             int // frames that hold the marker

	// strange is the first frame that is neither a datagram nor the underlay's own.
	strange []byte
}

// TallyOf sorts frames. The marker is looked for in all of them.
func TallyOf(frames [][]byte, marker string) (t Tally) {
	for _, frame := range frames {
		if bytes.Contains(frame, []byte(marker)) {
			t.Readable++
		}
		payload, _, ok := testnet.Datagram(frame)
		switch {
		case ok && testnet.IsQUIC(payload):
			t.QUIC++
		case ok && testnet.IsSealed(payload):
			t.Sealed++
		case ok:
			t.Others++
		case !testnet.IsNeighbourDiscovery(frame) && t.strange == nil:
			t.strange = frame
		}
	}
	return t
}

// MustBeSealed returns an error unless nothing that pods exchanged can be read.
func (t Tally) MustBeSealed(exchanges int) error {
	switch {
	case t.Readable > 0:
		return fmt.Errorf("the marker can be read in %d frames on the underlay", t.Readable)
	case t.Others > 0:
		return fmt.Errorf("%d datagrams on the underlay are neither sealed nor QUIC", t.Others)
	}
	return t.mustBeComplete(t.Sealed, exchanges)
}

// MustBeReadable returns an error unless the marker was seen as often as it was sent, there
// and back: who sees nothing there must not claim to see nothing where packets are sealed.
func (t Tally) MustBeReadable(exchanges int) error {
	return t.mustBeComplete(t.Readable, exchanges)
}

// mustBeComplete returns an error if fewer frames were seen than exchanges take, or
// something else than datagrams.
func (t Tally) mustBeComplete(seen, exchanges int) error {
	switch {
	case t.strange != nil:
		return fmt.Errorf("not a datagram, on the underlay: %x", t.strange)
	case seen < 2*exchanges: // there and back
		return fmt.Errorf("of %d exchanges only %d datagrams were seen on the underlay", exchanges, seen)
	}
	return nil
}
