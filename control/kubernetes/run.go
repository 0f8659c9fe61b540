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
	r := run{Source: s, news: control.NewEmitter(emit, debounceInterval, longestDebounce), wake: make(chan struct{}, 1), written: make(chan done, 1),
		attempts: control.Retry[todo]{Backoff: control.Backoff{Shortest: shortestPause, Longest: longestPause}}}
	defer r.group.Wait()
	defer cancel()
	r.nodes = newNodes(s.Options, func() { signal(r.wake) })
	r.nodes.contact = &s.Contact
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
			r.news.Reload()
			r.step(ctx)
		case <-r.wake:
			r.news.Disturb()
		case <-r.news.Due:
			r.news.Done()
			r.step(ctx)
		case <-s.Registered():
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
	news  *control.Emitter
	nodes *nodes
	link  link
	group sync.WaitGroup

	wake  chan struct{}    // receives after nodes or link have changed
	retry <-chan time.Time // receives when what could not be done is to be looked at again

	published string // what the last event said

	writing  *todo     // what is being written; nil if nothing is
	written  chan done // receives when writing has ended
	attempts control.Retry[todo]
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
		r.noState(r.noList(err))
		r.attempts.Reset() // what failed meanwhile failed for that reason
		return true
	}
	self := r.Self()
	own, listed := r.nodes.self()
	if self == nil || !listed {
		return false
	}
	want, err := r.entry(own, *self)
	if err != nil {
		r.noState(err)
		if own != nil {
			r.start(ctx, newTodo(own, nil, *self)) // a Node without pod CIDRs is one without a network too
		}
		return true
	}
	missing := newTodo(own, want, *self)
	well := missing.nothing()
	missing.event = r.event(*self)
	r.start(ctx, missing)
	if registered(own, want) {
		r.news.State(r.nodes.state, well)
	}
	return !missing.nothing()
}

// start begins to write, unless the same was written just now or could not be.
func (r *run) start(ctx context.Context, t todo) {
	if t.nothing() || r.writing != nil || r.attempts.Remaining(t) > 0 {
		return
	}
	r.writing = &t
	r.group.Go(func() { r.written <- r.write(ctx, t) })
}

// finish takes in how writing went.
func (r *run) finish(d done) {
	t := *r.writing
	r.writing = nil
	if d.err() == nil {
		r.attempts.Reset()
	}
	r.attempts.Tried(t)
	r.finishEvent(t.event, d.event)
	if r.link.get() != nil {
		return // which says it all
	}
	lesser := errors.Join(d.addresses, d.condition)
	switch {
	case d.annotations != nil:
		r.noState(d.annotations) // and the lesser errors have the same reason
	case lesser != nil:
		r.news.Error("lesser", lesser)
	}
}

// noState emits why there is no State.
func (r *run) noState(err error) {
	kind := "no State"
	if errors.Is(err, control.ErrNoPodCIDR) {
		kind = "no pod CIDR" // until that is known, pods get addresses that may be another's
	}
	r.news.NoState(kind, err)
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
