package handshake

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"weft/peer"
)

// prover proves what is due of the claims of all peers. Its methods are the manager's too.
type prover struct {
	endpoint *endpoint
	proofs   *proofs
	log      *slog.Logger
}

// Proven returns which peer has shown its key at which of the further addresses that peers claim.
func (p *prover) Proven() map[netip.Addr]peer.Fingerprint {
	p.proofs.mu.Lock()
	defer p.proofs.mu.Unlock()
	return p.proofs.proven()
}

// Proved receives when what Proven returns has changed.
func (p *prover) Proved() <-chan struct{} { return p.proofs.proved }

// Restore has what Proven has returned before a restart count as proven now, where the peers of
// the next Update claim it. There must have been no Update yet.
func (p *prover) Restore(proven map[netip.Addr]peer.Fingerprint) { p.proofs.before = proven }

// setClaims makes the claims those of the peers of a State, in which this node is self.
func (p *prover) setClaims(self *peer.Peer, all []*peer.Peer) {
	p.proofs.set(all, func(to netip.Addr) bool { return p.canProve(self, to) }, time.Now())
}

// canProve reports whether a peer at an address may answer: whether this node, self, has a socket
// in that family, and the peer knows an address of it there.
func (p *prover) canProve(self *peer.Peer, at netip.Addr) bool {
	like := func(a netip.Addr) bool { return a.Is4() == at.Is4() }
	local := addrPortOf(p.endpoint.conn.local).Addr()
	return (local == netip.IPv6Unspecified() || like(local)) && (like(self.Endpoint.Addr()) || slices.ContainsFunc(self.Claimed, like))
}

// prove proves what is due until ctx is done.
func (p *prover) prove(ctx context.Context) {
	var dials sync.WaitGroup
	defer dials.Wait()
	places, pace := make(chan struct{}, proofsAtOnce), rate.NewLimiter(proofsPerSecond, proofsPerSecond)
	for {
		c, to, wait := p.proofs.next(time.Now())
		if wait != 0 {
			if !p.awaitClaims(ctx, wait) {
				return
			}
			continue
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		if pace.Wait(ctx) != nil {
			return
		}
		dials.Go(func() {
			p.proveOne(ctx, c, to)
			<-places
		})
	}
}

// awaitClaims waits until something may be due, and reports false when ctx is done.
func (p *prover) awaitClaims(ctx context.Context, wait time.Duration) bool {
	var due <-chan time.Time
	if wait > 0 {
		due = time.After(wait)
	}
	select {
	case <-due:
	case <-p.proofs.changed:
	case <-ctx.Done():
		return false
	}
	return true
}

func (p *prover) proveOne(ctx context.Context, c claim, to netip.AddrPort) {
	dialing, cancel := context.WithTimeout(ctx, longestHandshakeTimeout)
	defer cancel()
	conn, err := p.endpoint.dial(dialing, to, c.key, proofProtocol, handshakeTimeout)
	if err == nil {
		_ = conn.CloseWithError(codeIdle, "")
	}
	if ctx.Err() != nil {
		return
	}
	name := p.proofs.done(c, to, err, time.Now())
	switch {
	case name == "":
	case err == nil:
		p.log.Info("peer address proven", "peer", name, "address", c.addr)
	default:
		p.log.Warn("peer address not proven", "peer", name, "address", c.addr, "error", err)
	}
}
