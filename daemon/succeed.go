package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"weft/control"
	"weft/daemon/handover"
	"weft/encap"
	"weft/internal/alone"
	"weft/internal/config"
	"weft/internal/warning"
	"weft/router/tun"
)

// Succession is how a weftd follows another one, and makes way for the next.
type Succession struct {
	// Takeover: a weftd that runs hands its data path over.
	Takeover bool

	// Linger: the process does not end when the next weftd has taken over; see linger.
	Linger bool
}

// predecessor is the weftd before this one, as far as it hands over its data path.
type predecessor struct {
	offer   *handover.Offer       // nil if it hands nothing over
	process *handover.Predecessor // if it runs still; nil if systemd has kept the offer
	plan    *control.Plan         // to start with; nil until it is known
	spare   *spareLanes           // for its lanes; nil until they are needed
	since   time.Duration         // when its lanes stopped, by handover.Now, if they are taken over
}

// endLimit is how long to wait for the end of the weftd before. It ends within a second, or some on a
// busy machine, unless it hangs or was stopped (SIGSTOP). Tests change it.
var endLimit = 20 * time.Second

// awaitEnd returns when the weftd before, which has handed over, runs no more. If that takes too long,
// it warns, and returns too.
func (d *daemon) awaitEnd(ctx context.Context, before *predecessor) {
	process := before.process
	if process == nil {
		return
	}
	within, cancel := context.WithTimeout(ctx, endLimit)
	defer cancel()
	if process.AwaitEnd(within) == nil || ctx.Err() != nil {
		return
	}
	d.warn("predecessor", &warning.Warning{Code: "predecessor", Text: fmt.Sprintf(
		"the weftd before this one, %s, has handed over and does not end: it forwards nothing, but keeps memory and metrics.listen; %s",
		process, process.Remedy())})
	go func() {
		if process.AwaitEnd(ctx) == nil {
			d.warn("predecessor", nil)
		}
	}()
}

// succeed makes this weftd the only one that changes the host, after the one before. With takeover
// that one may run still: then it hands its data path and the lock over.
func (d *daemon) succeed(ctx context.Context, takeover bool) (before *predecessor, err error) {
	if takeover {
		if before, err := d.takeOver(ctx); before != nil || err != nil {
			return before, err
		}
	}
	if d.lock == nil {
		d.lock, err = alone.Lock(d.config.RunDir)
		if takeover && errors.Is(err, alone.ErrRuns) { // since takeOver has looked
			return d.succeed(ctx, takeover)
		}
		if err != nil {
			return nil, err
		}
	}
	return &predecessor{offer: handover.Inherited(d.config.RunDir)}, nil
}

// takeOver asks a weftd that runs for its data path. It returns nil if an ordinary start must follow.
func (d *daemon) takeOver(ctx context.Context) (*predecessor, error) {
	const nobody = "no weftd to take over from, ordinary start"
	if held, err := alone.Held(d.config.RunDir); err == nil && !held {
		d.log.Info(nobody)
		return nil, nil
	}
	// Whatever takes time or may fail comes before that one's lanes stand still.
	if err := d.identify(); err != nil {
		return nil, err
	}
	plan, err := d.control.known(ctx, d.first)
	if err != nil {
		return nil, fmt.Errorf("no list of nodes to take over with; start without --takeover: %w", err)
	}
	spare, err := prepareLanes(d.config)
	if err != nil {
		return nil, err
	}
	process, offer, err := handover.Ask(d.config.RunDir, d.spec())
	switch {
	case errors.Is(err, handover.ErrNobody):
		if err := d.awaitLock(ctx); err != nil { // one that is about to end does not listen any more
			return nil, err
		}
		d.log.Info(nobody)
		return nil, nil
	case errors.Is(err, handover.ErrRefused):
		d.log.Warn("nothing handed over, ordinary start", "reason", err)
		return nil, d.awaitLock(ctx)
	case err != nil:
		return nil, fmt.Errorf("take over from the running weftd: %w", err)
	}
	if err := alone.Adopt(d.config.RunDir, process.Lock); err != nil {
		offer.Close()
		process.Close()
		return nil, fmt.Errorf("take over from the running weftd: %w", err)
	}
	d.lock = process.Lock
	return &predecessor{offer: offer, process: process, plan: plan, spare: spare}, nil
}

// awaitLock takes the lock of a weftd that hands nothing over, which it holds until it ends.
func (d *daemon) awaitLock(ctx context.Context) (err error) {
	for limit := time.Now().Add(endLimit); ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		d.lock, err = alone.Lock(d.config.RunDir)
		switch {
		case !errors.Is(err, alone.ErrRuns):
			return err
		case time.Now().After(limit):
			return fmt.Errorf("the running weftd hands nothing over, and has not ended for %v: %w", endLimit, err)
		}
	}
	return ctx.Err()
}

// inherit goes on with the data path of the weftd before, and reports whether it could. If that one
// runs, and goes on itself, it returns an error.
func (d *daemon) inherit(ctx context.Context, before *predecessor) (inherited bool, err error) {
	if before.offer == nil {
		return false, handover.Forget(d.config.RunDir)
	}
	state, err := d.claim(ctx, before)
	if err != nil && before.process != nil {
		before.process.Close()
		return false, fmt.Errorf("take over from the running weftd: %w", err)
	}
	if err := handover.Forget(d.config.RunDir); err != nil {
		return false, err
	}
	var p *path
	if err == nil {
		defer state.Wipe()
		p, err = d.adoptLanes(state, before.spare)
	}
	if err != nil {
		d.log.Warn("nothing taken over, ordinary start", "reason", err)
		d.awaitEnd(ctx, before)
		before.process = nil // its end was awaited
		return false, nil
	}
	before.since = state.Since
	return true, d.usePath(p, d.beginWith(ctx, before.plan, state.Roams), state)
}

// claim makes what is offered this process's, once a list of nodes is known.
func (d *daemon) claim(ctx context.Context, before *predecessor) (*handover.State, error) {
	err := d.identify()
	if err == nil && (before.plan == nil || d.control.renewed()) {
		var plan *control.Plan
		if plan, err = d.control.known(ctx, d.first); err == nil {
			before.plan = plan
		} else if before.plan != nil {
			d.log.Warn("the last list of nodes can't be used, the one before is", "error", err)
			err = nil
		}
	}
	if err != nil {
		before.offer.Close()
		return nil, fmt.Errorf("no list of nodes to begin with: %w", err)
	}
	state, err := before.offer.Claim(d.spec())
	if err == nil && before.process != nil {
		alone.Sign(d.lock)
		before.process.Claimed()
	}
	return state, err
}

// spareLanes are lanes that have no descriptors yet.
type spareLanes struct {
	queues *tun.Spare
	conns  encap.Spare
}

func prepareLanes(c config.Config) (_ *spareLanes, err error) {
	s := &spareLanes{conns: encap.Prepare(c.Lanes())}
	s.queues, err = tun.Prepare(string(c.TUN.Driver), c.Lanes())
	return s, err
}

// adoptLanes goes on with the device and the sockets of a state.
func (d *daemon) adoptLanes(s *handover.State, spare *spareLanes) (_ *path, err error) {
	if spare == nil {
		if spare, err = prepareLanes(d.config); err != nil {
			return nil, err
		}
	}
	p, c := new(path), d.config
	if p.queues, err = spare.queues.Adopt(c.TUN.Name, s.Queues); err == nil {
		err = tun.Persist(p.queues[0], true)
	}
	if err == nil {
		p.conns, err = spare.conns.Adopt(c.Listen, s.Receiving, s.Sending, sockets(c, p.queues))
	}
	if err != nil {
		s.Close()
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}
