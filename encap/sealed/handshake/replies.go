package handshake

import "time"

// replies counts what QUIC is about to send to the first packets of handshakes: that the sender
// must prove its address, or is refused. QUIC queues four of them and drops the rest, and a dialer
// without an answer sends its packets again. So admission waits until the ones before were sent.
type replies struct{ queued chan struct{} }

const (
	mostQueued = 4

	// replyWithin is how long admission waits if QUIC is slow to send.
	replyWithin = 2 * time.Millisecond
)

func newReplies() *replies { return &replies{make(chan struct{}, mostQueued)} }

// await waits until one more can be queued.
func (r *replies) await(closed <-chan struct{}) {
	select {
	case r.queued <- struct{}{}:
		return
	default:
	}
	timeout := time.NewTimer(replyWithin)
	defer timeout.Stop()
	select {
	case r.queued <- struct{}{}:
	case <-timeout.C:
	case <-closed:
	}
}

// sent learns of each packet that QUIC sends.
func (r *replies) sent(packet []byte) {
	if !isReply(packet) {
		return
	}
	select {
	case <-r.queued:
	default:
	}
}

// isReply reports whether a packet is a Retry, or an Initial of a server that has no handshake in
// it: those are longer (RFC 9000 §14.1, §17.2). One that only acknowledges counts too: at worst
// QUIC drops a reply.
func isReply(packet []byte) bool {
	const (
		form    = 0xf0
		initial = 0xc0
		retry   = 0xf0
		short   = 150
	)
	return packet[0]&form == retry || packet[0]&form == initial && len(packet) < short
}
