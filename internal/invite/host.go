package invite

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"weft/internal/nodekey"
	"weft/peer"
)

const (
	// maxConnections is how many connections the host serves at a time, and maxFromOne how many of these
	// from one address. Others wait in the kernel, or are closed.
	maxConnections = 16
	maxFromOne     = 4

	// handshakeRate is how many handshakes the host begins in a second: each takes a millisecond or two
	// of processor time.
	handshakeRate = 50

	// maxRefusal is how long the reason of a refusal may be that a guest reads, in bytes.
	maxRefusal = 4 << 10
)

// Host waits for one guest.
type Host struct {
	Key     ed25519.PrivateKey
	Token   Token
	Cluster Cluster

	// Admit makes the guest a node, and returns the list of nodes, or why it can't be one: the guest
	// reads that, and may try again. It is called for one guest at a time, and not again after it has
	// admitted one.
	Admit func(Request) (list []byte, err error)

	rate     *rate.Limiter
	mu       sync.Mutex
	admitted *Request
	from     map[netip.Addr]int
	unproven int
}

// Serve serves connections until a guest has joined, which it returns, or until ctx is done. It closes
// the listener.
func (h *Host) Serve(ctx context.Context, listener net.Listener) (*Request, error) {
	certificate, err := nodekey.Certificate(h.Key)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	config := nodekey.TLS(certificate, []string{protocol}, func(peer.Fingerprint) error { return nil }) // the proof decides
	h.from, h.rate = map[netip.Addr]int{}, rate.NewLimiter(handshakeRate, maxConnections)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	var serving sync.WaitGroup
	defer serving.Wait()
	places := make(chan struct{}, maxConnections)
	for {
		places <- struct{}{} // every connection ends after its time, if not before
		conn, err := listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return h.result(context.Cause(ctx))
		case err != nil: // such as no descriptor left, which passes
			<-places
			time.Sleep(100 * time.Millisecond)
			continue
		}
		serving.Go(func() {
			defer func() { <-places }()
			defer conn.Close()
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			if h.serve(ctx, conn, config) == nil {
				cancel()
			}
		})
	}
}

// result is what Serve returns at its end.
func (h *Host) result(why error) (*Request, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.admitted == nil {
		return nil, why
	}
	return h.admitted, nil
}

// Unproven returns how many connections showed no proof, such as those of scanners.
func (h *Host) Unproven() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.unproven
}

// serve serves one connection. It returns nil if its guest has joined.
func (h *Host) serve(ctx context.Context, conn net.Conn, config *tls.Config) error {
	if !h.enter(conn) {
		return errors.New("too many connections from there")
	}
	defer h.leave(conn)
	if err := h.rate.Wait(ctx); err != nil {
		return err
	}
	_ = conn.SetDeadline(time.Now().Add(unprovenLimit))
	session := tls.Server(conn, config)
	key, err := h.verify(session)
	if err != nil {
		h.mu.Lock()
		h.unproven++
		h.mu.Unlock()
		return err
	}
	_ = conn.SetDeadline(time.Now().Add(provenLimit))
	if err := write(session, h.Cluster); err != nil {
		return err
	}
	var r Request
	if err := read(session, &r, maxMessage); err != nil {
		return err
	}
	r.Key = key
	a, err := h.admit(r)
	// An admitted guest is a node, whether it reads the answer or not: it may ask again with another token.
	_ = write(session, a)
	_ = session.Close()
	return err
}

// verify returns the key of a guest that has shown the proof.
func (h *Host) verify(session *tls.Conn) (key peer.Fingerprint, err error) {
	if err := session.Handshake(); err != nil {
		return key, err
	}
	if key, err = nodekey.PeerFingerprint(session.ConnectionState()); err != nil {
		return key, err
	}
	want, err := proof(h.Token, session.ConnectionState(), key)
	if err != nil {
		return key, err
	}
	var got [sha256.Size]byte
	if _, err := io.ReadFull(session, got[:]); err != nil {
		return key, err
	}
	if !hmac.Equal(got[:], want) {
		return key, errors.New("the proof is wrong")
	}
	return key, nil
}

// admit lets one guest in, and no further one.
func (h *Host) admit(r Request) (answer, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := errors.New("the token is used; run `weft invite` again")
	var list []byte
	if h.admitted == nil {
		list, err = h.Admit(r)
	}
	if err != nil {
		text := err.Error()
		return answer{Refused: text[:min(len(text), maxRefusal)]}, fmt.Errorf("refused: %w", err)
	}
	h.admitted = &r
	return answer{List: list}, nil
}

func (h *Host) enter(conn net.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	addr := addrOf(conn)
	if h.from[addr] == maxFromOne {
		return false
	}
	h.from[addr]++
	return true
}

func (h *Host) leave(conn net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	addr := addrOf(conn)
	if h.from[addr]--; h.from[addr] == 0 {
		delete(h.from, addr)
	}
}

// addrOf is the other end's. Of IPv6 it is the network, as every host there has many addresses.
func addrOf(conn net.Conn) netip.Addr {
	const network = 64
	at, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
	addr := at.Addr().Unmap().WithZone("")
	if addr.Is6() {
		return netip.PrefixFrom(addr, network).Masked().Addr()
	}
	return addr
}
