package sealed

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"weft/drop"
	"weft/encap"
	"weft/packet"
	"weft/peer"
)

// How much one key seals. With 2^28 datagrams of up to 2 KiB the advantage of an attacker
// that distinguishes AES-GCM from noise is at most 2^-57 (RFC 9001 §B.1.1). A lane asks for
// new keys long before it has to stop, which it does at counterLimit.
const (
	rekeyAfter   = 1 << 27
	counterLimit = 1 << 28
)

// Secrets are what the keys of an epoch are made of: one for each direction. Lane i's
// key is HKDF-Expand(secret, "weft lane i") (RFC 5869).
type Secrets struct {
	Send, Receive [sha256.Size]byte
}

// Epoch is the lifetime of one set of data keys with a peer: a key for each lane and
// direction, made when the lane first needs it.
type Epoch struct {
	peer    *Peer
	at      netip.Addr // where the peer was when the keys were agreed
	keys    sync.Mutex // guards secrets, and is held while a key is made of them
	control sync.Mutex // held while the control lane seals: several goroutines send there
	secrets *Secrets   // nil when the epoch is over
	local   uint32     // this node's session, as the peer names it, shifted over the lane
	remote  uint32     // the peer's
	began   time.Time

	lanes     atomic.Int32 // of the peer: others send nothing
	retired   atomic.Bool  // its keys are not used any more
	proven    atomic.Bool  // the peer is known to have its keys
	rekeyDue  atomic.Bool  // a lane wants new keys
	senders   [maxLanes]atomic.Pointer[sealer]
	receivers [maxLanes]atomic.Pointer[opener]
}

// Began returns when the keys were agreed on.
func (e *Epoch) Began() time.Time { return e.began }

// At returns the address at which the peer has shown, by a handshake, that it is there.
func (e *Epoch) At() netip.Addr { return e.at }

// RekeyDue reports whether a lane has sealed so much that new keys are due.
func (e *Epoch) RekeyDue() bool { return e.rekeyDue.Load() }

// aead returns the cipher of a lane.
func aead(secret *[sha256.Size]byte, lane int) cipher.AEAD {
	const keyLen = 32
	key, err := hkdf.Expand(sha256.New, secret[:], fmt.Sprintf("weft lane %d", lane), keyLen)
	if err != nil {
		panic(err) // only for a key that is too long
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // only for a key of another length
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // only for another block size
	}
	return gcm
}

// nonce is the counter behind four zero bytes: unique, since each key has one counter.
type nonce [12]byte

func (n *nonce) set(counter uint64) []byte {
	binary.BigEndian.PutUint64(n[4:], counter)
	return n[:]
}

// sealer is one lane's sending half of an epoch. Only that lane uses it.
type sealer struct {
	epoch *Epoch
	aead  cipher.AEAD
	index uint32
	next  uint64 // the counter of the next datagram
	nonce nonce

	scratch [packet.MaxHeaders]byte // the headers of a super-packet

	packets, bytes atomic.Uint64 // of pods; for people
	inRuns         atomic.Uint64 // packets whose datagrams are in runs
}

// wipe overwrites the secrets, and drops the ciphers that were made of them: what they hold
// is Go's to overwrite, once no lane refers to them.
func (e *Epoch) wipe() {
	e.keys.Lock()
	defer e.keys.Unlock()
	*e.secrets = Secrets{}
	e.secrets = nil
	for lane := range maxLanes {
		e.senders[lane].Store(nil)
		e.receivers[lane].Store(nil)
	}
}

// sealer returns the lane's half, or nil if it has sealed all that its key may, or the epoch
// is over.
func (e *Epoch) sealer(lane int) *sealer {
	s := e.senders[lane].Load()
	if s == nil {
		if s = e.newSealer(lane); s == nil {
			return nil
		}
	}
	if s.next >= rekeyAfter {
		e.rekeyDue.Store(true)
		if s.next >= counterLimit-packet.MaxCut { // a super-packet needs as many
			return nil
		}
	}
	return s
}

func (e *Epoch) newSealer(lane int) *sealer {
	e.keys.Lock()
	defer e.keys.Unlock()
	if e.secrets == nil {
		return nil
	}
	s := &sealer{epoch: e, aead: aead(&e.secrets.Send, lane), index: e.remote | uint32(lane)}
	e.senders[lane].Store(s)
	return s
}

// seal adds the datagrams that carry f to the batch. What was sealed in place shares
// f's memory.
func (s *sealer) seal(out *encap.Batch, f *packet.Frame, to *peer.Peer) drop.Reason {
	class := packet.TrafficClass(f.Packet())
	if f.Virtio.GSOType != 0 {
		return s.sealSuper(out, f, to, class)
	}
	n := f.Len()
	b := f.WithRoom(HeaderLen, TagLen)
	if b == nil {
		b = out.Space(HeaderLen + n + TagLen)
		copy(b[HeaderLen:], f.Packet())
	}
	s.sealOne(b, b[HeaderLen:HeaderLen+n])
	out.Add(to, class, b, nil, n)
	s.count(1, n)
	return drop.None
}

// sealSuper seals each segment of a super-packet out of the frame and into a datagram. A
// segment's headers are written in front of its payload, over that of the segment before,
// which is sealed by then: so nothing is copied to make the two contiguous.
func (s *sealer) sealSuper(out *encap.Batch, f *packet.Frame, to *peer.Peer, class uint8) drop.Reason {
	segments, ok := f.Cut(false)
	if !ok {
		return drop.Unfinished
	}
	segments.KeepHeaders(s.scratch[:])
	space := out.Space(segments.Len() + segments.Count*(HeaderLen+TagLen))
	var before []byte
	for i := range segments.Count {
		plain := segments.InPlace(i)
		headers := plain[:segments.HeaderLen]
		if i == 0 {
			segments.Header(headers, 0)
		} else {
			copy(headers, before)
			segments.Next(headers, i)
		}
		before = headers
		n := HeaderLen + len(plain) + TagLen
		s.sealOne(space[:n], plain)
		out.Add(to, class, space[:n], nil, len(plain))
		space = space[n:]
	}
	s.count(segments.Count, segments.Len())
	return drop.None
}

// sealOne makes b the datagram of a packet, which is in its place in b or elsewhere.
func (s *sealer) sealOne(b, plain []byte) {
	header{index: s.index, counter: s.next}.put(b)
	s.aead.Seal(b[HeaderLen:HeaderLen], s.nonce.set(s.next), plain, b[:HeaderLen])
	s.next++
}

func (s *sealer) count(packets, bytes int) {
	s.packets.Store(s.packets.Load() + uint64(packets)) // only this lane writes them
	s.bytes.Store(s.bytes.Load() + uint64(bytes))
}

// opener is the receiving half of an epoch for one of the peer's lanes. Only the lane
// that receives from it uses it.
type opener struct {
	epoch  *Epoch
	aead   cipher.AEAD
	nonce  nonce
	window window

	packets, bytes atomic.Uint64 // of pods; for people
	refused        atomic.Uint64 // replayed or not authentic
}

// opener returns the half for the peer's lane, or nil if the peer has no such lane, or the
// epoch is over.
func (e *Epoch) opener(lane int) *opener {
	if lane >= int(e.lanes.Load()) && lane != controlLane {
		return nil
	}
	if o := e.receivers[lane].Load(); o != nil {
		return o
	}
	return e.newOpener(lane)
}

func (e *Epoch) newOpener(lane int) *opener {
	e.keys.Lock()
	defer e.keys.Unlock()
	if e.secrets == nil {
		return nil
	}
	o := &opener{epoch: e, aead: aead(&e.secrets.Receive, lane)}
	e.receivers[lane].Store(o)
	return o
}

// open decrypts a datagram in place. Nothing of one that is refused is left to read.
func (o *opener) open(b []byte, counter uint64) (plain []byte, reason drop.Reason) {
	if !o.window.fresh(counter) {
		o.refused.Add(1)
		return nil, drop.Replayed
	}
	plain, err := o.aead.Open(b[HeaderLen:HeaderLen], o.nonce.set(counter), b[HeaderLen:], b[:HeaderLen])
	if err != nil {
		o.refused.Add(1)
		return nil, drop.NotAuthentic
	}
	o.window.mark(counter)
	if !isMessage(plain) {
		o.packets.Store(o.packets.Load() + 1) // only this lane writes them
		o.bytes.Store(o.bytes.Load() + uint64(len(plain)))
	}
	return plain, drop.None
}
