package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"weft/control"
	"weft/daemon/handover"
	"weft/encap"
	"weft/internal/alone"
	"weft/internal/config"
	"weft/router/tun"
)

// predecessor is the weftd before this one, as far as it hands over its data path.
type predecessor struct {
	offer   *handover.Offer       // nil if it hands nothing over
	process *handover.Predecessor // if it runs still; nil if systemd has kept the offer
	plan    *control.Plan         // to start with; nil until it is known
	spare   *spareLanes           // for its lanes; nil until they are needed
	since   time.Duration         // when its lanes stopped, by handover.Now, if they are taken over
}

// awaitEnd returns when it runs no more.
func (p *predecessor) awaitEnd(ctx context.Context) {
	if p.process != nil {
		p.process.AwaitEnd(ctx)
	}
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
		if d.lock, err = alone.Lock(d.config.RunDir); err != nil {
			return nil, err
		}
	}
	return &predecessor{offer: handover.Inherited(d.config.RunDir)}, nil
}

// takeOver asks a weftd that runs for its data path. It returns nil if an ordinary start must follow.
func (d *daemon) takeOver(ctx context.Context) (*predecessor, error) {
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
		d.log.Info("no weftd to take over from, ordinary start")
		return nil, nil
	case errors.Is(err, handover.ErrRefused):
		d.log.Warn("nothing handed over, ordinary start", "reason", err)
		return nil, d.afterEnd(ctx, process)
	case err != nil:
		return nil, fmt.Errorf("take over from the running weftd: %w", err)
	}
	if err := alone.Adopt(d.config.RunDir, process.Lock); err != nil {
		offer.Close()
		process.Close()
		return nil, fmt.Errorf("take over from the running weftd: %w", err)
	}
	d.lock = process.Lock
	becomeService(process)
	return &predecessor{offer: offer, process: process, plan: plan, spare: spare}, nil
}

// becomeService has this process report to systemd if the other one was a service: it says that
// this one is the service now.
func becomeService(process *handover.Predecessor) {
	if process.Notify != "" && !handover.Supervised() {
		_ = os.Setenv("NOTIFY_SOCKET", process.Notify)
	}
}

// afterEnd takes the lock of a process that is about to end.
func (d *daemon) afterEnd(ctx context.Context, process *handover.Predecessor) (err error) {
	becomeService(process)
	process.AwaitEnd(ctx)
	for d.lock == nil && ctx.Err() == nil {
		if d.lock, err = alone.Lock(d.config.RunDir); !errors.Is(err, alone.ErrRuns) {
			return err
		}
		time.Sleep(10 * time.Millisecond) // it lets go of its files one after the other
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
		before.awaitEnd(ctx)
		return false, nil
	}
	before.since = state.Since
	return true, d.usePath(p, d.beginWith(ctx, before.plan, state.Roams), state)
}

// claim makes what is offered this process's, once a list of nodes is known.
func (d *daemon) claim(ctx context.Context, before *predecessor) (*handover.State, error) {
	err := d.identify()
	if err == nil && before.plan == nil {
		before.plan, err = d.control.known(ctx, d.first)
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
