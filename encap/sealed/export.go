package sealed

import (
	"encoding/binary"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"weft/peer"
)

// An export has the keys of all peers. It is of one machine, and of no use after a reboot: all
// numbers are big-endian, times are of the monotonic clock.
//
//	version, 1 byte, and for each peer:
//	  key, 32 bytes; 1 if each datagram goes out alone, 1 byte; number of epochs, 1 byte
//	  and for each epoch, the newest last:
//	    secrets to send and to receive with, 32 bytes each
//	    this node's session and the peer's, shifted over the lane, 4 bytes each
//	    the peer's address when the keys were agreed, 16 bytes; when that was, 8 bytes
//	    how many lanes the peer has, 1 byte; flags, 1 byte
//	    for each lane to send: its next counter, 8 bytes
//	    for each lane to receive: 1 if there is a window, 1 byte; then the window
const ExportVersion = 1

const (
	secretLen     = len(Secrets{}.Send)
	peerExportLen = len(peer.Fingerprint{}) + 1 + 1
	epochLen      = 2*secretLen + 2*4 + 16 + 8 + 1 + 1 + maxLanes*8 + maxLanes*1
	windowLen     = 8 + windowWords*8
)

// The flags of an epoch.
const (
	flagProven = 1 << iota
	flagRekeyDue
	flagSending
)

// Export returns all keys with their exact counters and windows, and ends the epochs: this process
// can no longer seal or open with them, unless it imports them again. Of all that hold an export one
// may import it, once, or counters would be used twice. Packets that wait for keys are lost. The lanes
// must have ended. The caller wipes the result.
func (p *Peers) Export() []byte {
	all := p.known.Load().peers
	size := 1
	for _, peer := range all {
		size += peer.exportLen()
	}
	b := append(make([]byte, 0, size), ExportVersion) // it does not grow, which would leave a copy
	for _, peer := range all {
		b = peer.export(b)
	}
	return b
}

func (p *Peer) exportLen() int {
	n := peerExportLen
	for _, e := range p.Epochs() {
		n += epochLen
		for lane := range maxLanes {
			if e.receivers[lane].Load() != nil {
				n += windowLen
			}
		}
	}
	return n
}

func (p *Peer) export(b []byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.peers.lost.Add(uint64(len(p.forgetWaiting())))
	b = append(append(b, p.Key[:]...), bit(1, p.Singly()), byte(len(p.epochs)))
	for _, e := range slices.Clone(p.epochs) {
		b = e.export(b)
	}
	return b
}

// export adds an epoch and ends it; its peer's lock is held.
func (e *Epoch) export(b []byte) []byte {
	e.control.Lock() // no lane, but others seal there
	defer e.control.Unlock()
	b = append(append(b, e.secrets.Send[:]...), e.secrets.Receive[:]...)
	b = binary.BigEndian.AppendUint32(b, e.local)
	b = binary.BigEndian.AppendUint32(b, e.remote)
	at := e.at.As16()
	b = append(b, at[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(monotonic()-time.Since(e.began)))
	b = append(b, byte(e.lanes.Load()),
		bit(flagProven, e.proven.Load())|bit(flagRekeyDue, e.rekeyDue.Load())|bit(flagSending, e.peer.sending.Load() == e))
	for lane := range maxLanes {
		next := uint64(0) // of a lane that has sealed nothing
		if s := e.senders[lane].Load(); s != nil {
			next = s.next
		}
		b = binary.BigEndian.AppendUint64(b, next)
	}
	for lane := range maxLanes {
		o := e.receivers[lane].Load()
		if o == nil {
			b = append(b, 0)
			continue
		}
		b = binary.BigEndian.AppendUint64(append(b, 1), o.window.next)
		for _, seen := range o.window.seen {
			b = binary.BigEndian.AppendUint64(b, seen)
		}
	}
	e.end() // before the control lane is free again
	return b
}

// bit returns a flag that is set or not.
func bit(flag byte, set bool) byte {
	if set {
		return flag
	}
	return 0
}

// monotonic is the clock that all processes of a machine share, and which is never set
// (clock_gettime(2)).
func monotonic() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err) // only for a clock that does not exist
	}
	return time.Duration(now.Nano())
}
