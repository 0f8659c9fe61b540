package sealed

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"weft/peer"
)

// Import has the keys of an export used from now on, with the counters and windows that they had,
// and returns with how many peers. The others of the export are no peers of this node any more. The
// lanes must not have begun. After an error, no key is used.
func (p *Peers) Import(export []byte) (peers int, err error) {
	in := importer{rest: export}
	if version := in.number(1); in.err == nil && version != ExportVersion {
		return 0, fmt.Errorf("import keys: they are in version %d of their layout, and this weftd knows version %d", version, ExportVersion)
	}
	var all []imported
	for len(in.rest) > 0 {
		epochs := in.peer(p)
		all = append(all, epochs...)
		peers += min(len(epochs), 1)
	}
	if in.err == nil {
		in.err = p.sessions.restore(all)
	}
	if in.err != nil {
		for _, i := range all {
			i.wipe()
		}
		return 0, fmt.Errorf("import keys: %w", in.err)
	}
	for _, i := range all {
		i.use()
	}
	return peers, nil
}

// imported is an epoch that is not used yet.
type imported struct {
	*Epoch
	sending bool // it is the one that is sealed with
}

// use has an imported epoch received from, and sealed with if it was. Those of a peer come in their
// order.
func (i imported) use() {
	p := i.peer
	p.mu.Lock()
	defer p.mu.Unlock()
	p.epochs = append(p.epochs, i.Epoch)
	if i.sending {
		p.sending.Store(i.Epoch)
	}
}

// importer reads an export. After an error it reads zeros.
type importer struct {
	rest []byte
	err  error
}

var errExport = errors.New("the export is damaged")

func (in *importer) check(ok bool) {
	if !ok && in.err == nil {
		in.err, in.rest = errExport, nil
	}
}

// bytes returns the next n bytes, which stay the export's.
func (in *importer) bytes(n int) []byte {
	in.check(n <= len(in.rest))
	if in.err != nil {
		return make([]byte, n)
	}
	b := in.rest[:n]
	in.rest = in.rest[n:]
	return b
}

// number returns a number of up to 8 bytes.
func (in *importer) number(size int) uint64 {
	var b [8]byte
	copy(b[8-size:], in.bytes(size))
	return binary.BigEndian.Uint64(b[:])
}

// counter returns one that a key may still have.
func (in *importer) counter() uint64 {
	n := in.number(8)
	in.check(n <= counterLimit)
	return n
}

// peer reads a peer. It returns nothing of one that is none any more.
func (in *importer) peer(p *Peers) (epochs []imported) {
	key := peer.Fingerprint(in.bytes(len(peer.Fingerprint{})))
	singly, n := in.number(1) == 1, int(in.number(1))
	in.check(n <= maxEpochs)
	known := p.Find(key)
	for range n {
		if in.err != nil {
			break
		}
		e := in.epoch(known)
		if known == nil {
			e.wipe()
			continue
		}
		epochs = append(epochs, e)
	}
	if known != nil && in.err == nil {
		known.SendSingly(singly)
	}
	return epochs
}

func (in *importer) epoch(of *Peer) imported {
	e := &Epoch{peer: of, secrets: new(Secrets)}
	copy(e.secrets.Send[:], in.bytes(secretLen))
	copy(e.secrets.Receive[:], in.bytes(secretLen))
	e.local, e.remote = uint32(in.number(4)), uint32(in.number(4))
	in.check((e.local|e.remote)%maxLanes == 0)
	e.at = netip.AddrFrom16([16]byte(in.bytes(16))).Unmap()
	e.began = time.Now().Add(time.Duration(in.number(8)) - monotonic())
	lanes, flags := in.number(1), in.number(1)
	in.check(lanes <= MaxLanes)
	e.lanes.Store(int32(lanes))
	e.proven.Store(flags&flagProven != 0)
	e.rekeyDue.Store(flags&flagRekeyDue != 0)
	for lane := range maxLanes {
		if next := in.counter(); next > 0 {
			e.newSealer(lane).next = next
		}
	}
	for lane := range maxLanes {
		if in.number(1) == 0 {
			continue
		}
		o := e.newOpener(lane)
		o.window.next = in.counter()
		for i := range o.window.seen {
			o.window.seen[i] = in.number(8)
		}
	}
	return imported{e, flags&flagSending != 0}
}
