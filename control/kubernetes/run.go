package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"weft/control"
)

const (
	// debounceInterval is how long no Node must have changed before a State is emitted.
	// Changes without a pause put it off by longestDebounce at most.
	debounceInterval = 20 * time.Millisecond
	longestDebounce  = 150 * time.Millisecond

	// retryInterval is how often what could not be done yet is looked at again.
	retryInterval = time.Second

	// shortestPause and longestPause bound the time between two tries to write the same.
	shortestPause = time.Second
	longestPause  = 30 * time.Second

	// relistPause is how long it takes at most, and twice that by chance, to list again after a
	// watch that was broken off, if that goes on: thousands of nodes do the same.
	relistPause = 10 * time.Second
)

// Run implements control.Source. It emits States from the first Register on, and only those
// in which this node is as it was registered last: with its endpoint and its key.
func (s *Source) Run(ctx context.Context, reload <-chan struct{}, emit func(control.State, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	r := run{Source: s, emit: emit, wake: make(chan struct{}, 1), written: make(chan done, 1),
		debounce: control.Debounce{Interval: debounceInterval, Longest: longestDebounce}, pause: control.Backoff{Shortest: shortestPause, Longest: longestPause}}
	defer r.group.Wait()
	defer cancel()
	r.nodes = newNodes(s.Options, func() { signal(r.wake) })
	r.group.Go(func() { r.reflector(ctx).RunWithContext(ctx) })

	for {
		select {
		case <-ctx.Done():
			return nil
		case _, open := <-reload:
			if !open {
				reload = nil
				continue
			}
			r.due, r.again, r.noState, r.noCondition = true, true, trouble{}, trouble{}
			r.step(ctx)
		case <-r.wake:
			r.debounce.Disturb()
		case <-r.debounce.Due:
			r.debounce.Done()
			r.due = true
			r.step(ctx)
		case <-s.registered:
			r.step(ctx)
		case d := <-r.written:
			r.finish(d)
			r.step(ctx)
		case <-r.retry:
			r.step(ctx)
		}
	}
}

// run is the state of one Run.
type run struct {
	*Source
	emit  func(control.State, error)
	nodes *nodes
	link  link
	group sync.WaitGroup

	wake chan struct{} // receives after nodes or link have changed

	debounce control.Debounce // of what changes, until a State is due
	retry    <-chan time.Time // receives when what could not be done is to be looked at again

	// due says that a State is due as soon as there can be one; again, that it is even if
	// it is the same as the last one, which is emitted.
	due, again bool
	emitted    control.State

	noState     trouble // why there is no State
	fenced      bool    // it was told that this node has no pod CIDR, and no State was emitted since
	noCondition trouble // why the condition, or the further addresses, could not be written
	published   string  // what the last event said

	writing   bool
	written   chan done // receives when writing has ended
	last      todo      // what was written last, or could not be
	notBefore time.Time // when the same may be written again
	pause     control.Backoff
}

// step does whatever can be done now, and has the rest tried again.
func (r *run) step(ctx context.Context) {
	r.retry = nil
	if r.do(ctx) {
		r.retry = time.After(retryInterval)
	}
}

// do writes what is missing in this node's own Node, and emits a State if one is due, or the
// reason why there is none if that is news. It reports whether something is left to be tried
// again; what only the API server's or this node's news can change is not.
func (r *run) do(ctx context.Context) (left bool) {
	if err := r.link.get(); err != nil {
		r.tell(r.noList(err))
		r.pause.Reset()
		r.notBefore = time.Time{} // what failed meanwhile failed for that reason
		return true
	}
	self, ok := r.registration()
	own, listed := r.nodes.self()
	if !ok || !listed {
		return false
	}
	want, err := r.entry(own, self)
	if err != nil {
		r.tell(err)
		if own != nil {
			r.start(ctx, newTodo(own, nil, self)) // a Node without pod CIDRs is one without a network too
		}
		return true
	}
	missing := newTodo(own, want, self)
	missing.event = r.event(self)
	r.start(ctx, missing)
	if r.due && registered(own, want) {
		r.debounce.Emit(func() {
			state := r.nodes.state()
			if r.again || !reflect.DeepEqual(state, r.emitted) {
				r.emit(state, nil)
			}
			r.due, r.again, r.emitted, r.noState, r.fenced = false, false, state, trouble{}, false
		})
	}
	return !missing.nothing()
}

// tell emits why there is no State. One is due when that is over, though it may be the
// last one again.
func (r *run) tell(err error) {
	r.due, r.again = true, true
	if errors.Is(err, control.ErrNoPodCIDR) && !r.fenced {
		r.fenced, r.noState = true, trouble{} // until that is told, pods get addresses that may be another's
	}
	if r.noState.news(err, time.Now()) {
		r.emit(control.State{}, err)
	}
}

// start begins to write, unless the same was written just now or could not be.
func (r *run) start(ctx context.Context, t todo) {
	if t.nothing() || r.writing || t == r.last && time.Now().Before(r.notBefore) {
		return
	}
	r.writing, r.last = true, t
	r.group.Go(func() { r.written <- r.write(ctx, t) })
}

// finish takes in how writing went.
func (r *run) finish(d done) {
	r.writing = false
	if d.err() == nil {
		r.pause.Reset()
	}
	r.notBefore = time.Now().Add(r.pause.Wait())
	r.finishEvent(d.event)
	if r.link.get() != nil {
		return // which says it all
	}
	if d.annotations != nil {
		r.tell(d.annotations)
	}
	switch lesser := errors.Join(d.addresses, d.condition); {
	case lesser != nil && d.annotations != nil: // for the same reason
	case lesser != nil && r.noCondition.news(lesser, time.Now()):
		r.emit(control.State{}, lesser)
	case lesser == nil && r.noCondition.reported != "":
		r.due, r.again, r.noCondition = true, true, trouble{}
	}
}

// A connection that is closed before an answer comes, as by a load balancer that has no
// API server left, is no error to client-go, but a watch that is over.
var (
	noWatch     = reflect.TypeOf(watch.NewEmptyWatch())
	errNoAnswer = errors.New("the connection was closed without an answer")
)

// reflector returns what lists and watches the Nodes, for as long as it takes.
func (r *run) reflector(running context.Context) *cache.Reflector {
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o meta.ListOptions) (list runtime.Object, err error) {
			// The Reflector's own context has no end here.
			return list, r.ask(running, func(api nodeAPI) (err error) {
				list, err = api.List(ctx, o)
				return err
			})
		},
		WatchFuncWithContext: func(ctx context.Context, o meta.ListOptions) (w watch.Interface, err error) {
			err = r.ask(ctx, func(api nodeAPI) (err error) {
				w, err = api.Watch(ctx, o)
				if reflect.TypeOf(w) == noWatch {
					w, err = nil, errNoAnswer
				}
				return err
			})
			return w, err
		},
	}
	return cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(lw, r.currentAPI()), nil, r.nodes, cache.ReflectorOptions{
		Name:    "weft",
		Backoff: &wait.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Steps: 10, Cap: relistPause, Jitter: 1},
	})
}

// link is whether the API server answers.
type link struct {
	mu      sync.Mutex
	err     error
	refused time.Time // since when it refuses everything; zero if it doesn't
}

func (l *link) get() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// set reports whether anything has changed.
func (l *link) set(err error, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !apierrors.IsForbidden(err):
		l.refused = time.Time{}
	case l.refused.IsZero():
		l.refused = now
		return false
	case now.Sub(l.refused) < rightsGrace:
		return false
	}
	before := l.err
	l.err = err
	return fmt.Sprint(before) != fmt.Sprint(err)
}
