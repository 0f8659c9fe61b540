package handshake

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"

	"github.com/quic-go/quic-go"
)

// How many handshakes that others have begun may be under way at a time. Each costs up to
// 100 KB until it ends or its time is over.
const (
	// unverified is how many may come from one address, and unverifiedAll from all, before
	// who begins another must show first that the address is its own (RFC 9000 §8.1.2).
	// That takes a round trip. Who forges a peer's address can't, and keeps nobody out.
	unverified    = 2
	unverifiedAll = 256

	// verified is how many may come from one address that was shown to be the sender's.
	verified = 8

	// all is how many there may be.
	all = 512
)

// admission counts handshakes.
type admission struct {
	mu       sync.Mutex
	underWay map[netip.Addr]int
	total    int
}

type admissionKey struct{}

// verifyAddress implements quic.Transport.VerifySourceAddress.
func (a *admission) verifyAddress(from net.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.underWay[addrOf(from)] >= unverified || a.total >= unverifiedAll
}

// admit implements quic.Transport.ConnContext.
func (a *admission) admit(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	from := addrOf(info.RemoteAddr)
	if a.underWay[from] >= verified || a.total >= all {
		return nil, errors.New("too many handshakes at once")
	}
	a.count(from, 1)
	settle := sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.count(from, -1)
	})
	context.AfterFunc(ctx, settle)
	return context.WithValue(ctx, admissionKey{}, settle), nil
}

func (a *admission) count(from netip.Addr, n int) {
	if a.underWay == nil {
		a.underWay = map[netip.Addr]int{}
	}
	a.total += n
	if a.underWay[from] += n; a.underWay[from] == 0 {
		delete(a.underWay, from)
	}
}

// settle is called when a handshake has succeeded.
func (a *admission) settle(ctx context.Context) { ctx.Value(admissionKey{}).(func())() }

func addrOf(a net.Addr) netip.Addr { return a.(*net.UDPAddr).AddrPort().Addr().Unmap() }
