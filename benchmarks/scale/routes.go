package scale

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weft/internal/marks"
	"weft/internal/rtnetlink"
	"weft/internal/testnet"
)

// eventBuffer is what the kernel keeps of events that were not read yet, in bytes: those of
// tens of thousands of routes.
const eventBuffer = 64 << 20

// routeWatch listens to the kernel's events of weft's routes in a namespace.
type routeWatch struct {
	stop  chan struct{}
	ended chan struct{}

	mu      sync.Mutex
	pending map[event]bool
	last    time.Time // when pending became empty
	met     chan struct{}
	err     error
}

func watchRoutes(in *testnet.Namespace) (*routeWatch, error) {
	handle, err := netns.GetFromPath(in.Path())
	if err != nil {
		return nil, fmt.Errorf("watch the routes of %s: %w", in.Name(), err)
	}
	defer handle.Close()
	w := &routeWatch{stop: make(chan struct{}), ended: make(chan struct{})}
	updates := make(chan netlink.RouteUpdate, 1024)
	err = netlink.RouteSubscribeWithOptions(updates, w.stop, netlink.RouteSubscribeOptions{
		Namespace: &handle, ReceiveBufferSize: eventBuffer, ReceiveBufferForceSize: true,
		ErrorCallback: w.fail,
	})
	if err != nil {
		return nil, fmt.Errorf("watch the routes of %s: %w", in.Name(), err)
	}
	go func() {
		defer close(w.ended)
		for u := range updates {
			w.take(u)
		}
	}()
	return w, nil
}

func (w *routeWatch) close() {
	close(w.stop)
	<-w.ended
}

// expect says what wait waits for. Call it before whatever makes the events.
func (w *routeWatch) expect(events []event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending, w.met = make(map[event]bool, len(events)), make(chan struct{})
	for _, e := range events {
		w.pending[e] = true
	}
}

func (w *routeWatch) take(u netlink.RouteUpdate) {
	if u.Protocol != marks.RouteProtocol {
		return
	}
	e := event{u.Table, rtnetlink.Prefix(u.Dst), u.Type == unix.RTM_DELROUTE}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.pending[e] {
		return
	}
	delete(w.pending, e)
	if len(w.pending) == 0 {
		w.last = time.Now()
		close(w.met)
	}
}

// fail notes that events may have been lost.
func (w *routeWatch) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = errors.Join(w.err, err)
}

// wait returns when the last of the expected events arrived.
func (w *routeWatch) wait(ctx context.Context) (time.Time, error) {
	w.mu.Lock()
	met := w.met
	w.mu.Unlock()
	select {
	case <-met:
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.last, nil
	case <-w.ended:
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for e := range w.pending {
		return time.Time{}, errors.Join(fmt.Errorf("wait for %d changes of routes, such as %+v: %w", len(w.pending), e, context.Cause(ctx)), w.err)
	}
	return w.last, nil
}
