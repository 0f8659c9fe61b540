package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"weft/control"
	"weft/internal/strict"
)

const (
	// debounceInterval is how long nothing must have changed before a State is emitted.
	// Changes without a pause put it off by longestDebounce at most.
	debounceInterval = 20 * time.Millisecond
	longestDebounce  = 200 * time.Millisecond

	// progressInterval is how often etcd is asked how far the watch is. If it says nothing
	// for silence, the watch is dead.
	progressInterval = 3 * time.Second
	silence          = 3 * progressInterval

	// sessionLife is how long a watch is relied upon before everything is listed again,
	// half as long at least.
	sessionLife = time.Hour

	// stableAfter is how long a watch must have lasted for its end to be no sign of trouble,
	// and how long no other machine may have written this node's entry.
	stableAfter = 10 * time.Second

	// shortestRetry is about how long it takes at most to connect again. A password costs etcd
	// some 50 ms of a processor for each time that a node connects.
	shortestRetry = 2500 * time.Millisecond
)

// Run implements control.Source. It emits a State when this node stands registered in it,
// or, before Register was called, when it was registered by an earlier weftd.
func (s *Source) Run(ctx context.Context, reload <-chan struct{}, emit func(control.State, error)) error {
	r := newRun(s, reload, emit)
	pause := control.Backoff{Shortest: 100 * time.Millisecond, Longest: shortestRetry}
	for failures := 0; ctx.Err() == nil; {
		started := time.Now()
		listed, err := r.session(ctx)
		if time.Since(started) > stableAfter {
			failures = 0
			pause.Reset()
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		r.Lost()
		// A watch that breaks once in a while, as when a member is restarted, is no news.
		if failures++; !listed || failures > 2 {
			r.noState(s.explain("follow the nodes", err))
		}
		pause.Longest = max(shortestRetry, control.ReconnectPause(r.size()))
		select {
		case <-ctx.Done():
		case _, open := <-r.reload:
			r.reloaded(open)
		case <-time.After(pause.Wait()):
		}
	}
	return nil
}

// run is the state of one Run.
type run struct {
	*Source
	reload <-chan struct{}
	news   *control.Emitter

	// listing is what was known last; nil before the first list.
	listing *listing

	contest contest
}

func newRun(s *Source, reload <-chan struct{}, emit func(control.State, error)) *run {
	return &run{Source: s, reload: reload, news: control.NewEmitter(emit, debounceInterval, longestDebounce), contest: newContest()}
}

// size returns how many nodes there were when it was last known.
func (r *run) size() int {
	if r.listing == nil {
		return 0
	}
	return len(r.listing.entries)
}

// noState emits why there is no State.
func (r *run) noState(err error) { r.news.NoState(kindOf(err), err) }

// reloaded takes notice of what was received from reload.
func (r *run) reloaded(open bool) {
	if !open {
		r.reload = nil
		return
	}
	r.news.Reload()
}

// session connects, lists, and follows changes, until something breaks, or until all is to
// be listed again, which is no error.
func (r *run) session(ctx context.Context) (listed bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client, err := r.connect(ctx)
	if err != nil {
		return false, err
	}
	defer client.Close()
	l, err := r.list(ctx, client, r.listing)
	if err != nil {
		return false, err
	}
	r.Made()
	r.listing = l
	f := follower{run: r, client: client, pause: control.Backoff{Shortest: 20 * time.Millisecond, Longest: 5 * time.Second}}
	return true, f.follow(ctx)
}

// follower is the state of one session.
type follower struct {
	*run
	client *clientv3.Client

	// again receives when writing is to be tried again; nil if it isn't to be.
	again <-chan time.Time
	pause control.Backoff

	// written is the revision of what this node wrote last: until the watch has reported
	// that, it is not known who claimed what before.
	written int64
}

func (f *follower) follow(ctx context.Context) error {
	// Without a leader, a member would keep silent rather than say that it can't know.
	watchCtx := clientv3.WithRequireLeader(ctx)
	watch := f.client.Watch(watchCtx, f.options.folder(), clientv3.WithPrefix(), clientv3.WithRev(f.listing.revision+1))
	heard := time.Now()
	act := func() {
		began := time.Now()
		f.act(ctx)
		heard = heard.Add(time.Since(began)) // the watch was not read meanwhile
	}
	progress := time.NewTicker(progressInterval)
	defer progress.Stop()
	age := time.After(sessionLife/2 + rand.N(sessionLife/2))
	address := f.address()
	act()
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, open := <-f.reload:
			f.reloaded(open)
			if open {
				return nil
			}
		case <-age:
			return nil
		case <-f.Registered():
			if before := address; before.IsValid() && before != f.address() {
				return nil // the connection, which is from the old address, may be dead
			}
			address = f.address()
			f.again = nil // what could not be written may be something else now
			act()
		case <-f.news.Due:
			act()
		case <-f.again:
			f.again = nil
			act()
		case answer, open := <-watch:
			if err := f.check(answer, open); err != nil {
				return err
			}
			f.Made()
			heard = time.Now()
			f.listing.apply(answer.Events)
			if len(answer.Events) > 0 {
				f.news.Disturb()
			}
		case <-progress.C:
			if time.Since(heard) > silence {
				return errors.New("the watch is silent")
			}
			f.askForProgress(watchCtx)
		}
	}
}

// address is the one at which this node registers; invalid before the first Register.
func (f *follower) address() netip.Addr {
	if self := f.Self(); self != nil {
		return self.Endpoint.Addr()
	}
	return netip.Addr{}
}

// check returns why a watch can't be followed any further.
func (f *follower) check(answer clientv3.WatchResponse, open bool) error {
	switch err := answer.Err(); {
	case !open:
		return errors.New("the watch has ended")
	case err != nil:
		return fmt.Errorf("watch: %w", err)
	case answer.Header.Revision < f.listing.revision:
		// It was restored from a backup, or made anew, or this member is behind.
		return fmt.Errorf("etcd is at revision %d, but was at %d", answer.Header.Revision, f.listing.revision)
	}
	return nil
}

// askForProgress has etcd say something about the watch. It waits for the client to take
// the question, which it does at once unless the watch has not begun yet.
func (f *follower) askForProgress(watchCtx context.Context) {
	ctx, cancel := context.WithTimeout(watchCtx, 100*time.Millisecond)
	defer cancel()
	_ = f.client.RequestProgress(ctx) // what fails is followed by silence
}

// act does what the listing asks for: it registers this node if that is needed, and emits a
// State if this node stands in it.
func (f *follower) act(ctx context.Context) {
	f.news.Done()
	l := f.listing
	if l.revision < f.written {
		return // the watch will tell
	}
	self := f.Self()
	if self == nil {
		if _, known := l.entries[f.options.Node]; known {
			f.emitState(nil, true)
		}
		return
	}
	r, err := l.registration(*self, f.held)
	if err != nil {
		f.noState(err) // until a claim goes away, or the configuration changes, nothing can be done
		return
	}
	if r.lost != nil {
		f.noState(r.lost)
	}
	registered := len(r.claims) == 0 && r.entry == ""
	if len(r.claims) == 0 {
		f.held = r.node.PodCIDRs
		f.emitState(&r.node, registered && f.contest.over())
	}
	if !registered && f.again == nil {
		f.register(ctx, r)
	}
}

// register writes the registration. The watch reports that it is done; if it can't or mustn't
// be done now, it is tried again later.
func (f *follower) register(ctx context.Context, r registration) {
	if other, ok := f.listing.anotherMachine(r.node); ok && f.contest.lost(r.entry) {
		err := fmt.Errorf("another machine writes the entry of this node's name, %s: others reach it at %s; name one of the two differently under the configuration's key node",
			f.options.Node, strict.Quote(other.String()))
		f.news.Error(kindOf(err), err)
	}
	if wait := f.contest.retry.Remaining(r.entry); wait > 0 && len(r.claims) == 0 {
		f.again = time.After(wait)
		return
	}
	revision, err := f.listing.write(ctx, f.client, r)
	switch {
	case err == nil:
		f.written = revision
		f.pause.Reset()
		f.contest.wrote(r.entry)
		return
	case ctx.Err() != nil:
		return
	case errors.Is(err, errOvertaken): // the watch soon reports by what
		f.again = time.After(min(f.pause.Wait(), time.Second))
	default:
		err = f.explain("register this node", err)
		f.news.Error(kindOf(err), err)
		f.again = time.After(f.pause.Wait())
	}
}

// emitState emits the State in which this node is as self says, if that is not nil.
func (f *follower) emitState(self *control.Node, well bool) {
	f.news.State(func() control.State { return f.listing.state(self) }, well)
}
