package etcd

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"weft/control"
)

// watched is an etcd in memory, in which node1 stands registered, and which reports to one watch
// of what others write, unless it is dead. It is for tests whose time passes only while nothing else happens: see
// testing/synctest.
type watched struct {
	answers chan clientv3.WatchResponse

	mu       sync.Mutex
	revision int64
	dead     bool
}

func (w *watched) Watch(context.Context, string, ...clientv3.OpOption) clientv3.WatchChan {
	return w.answers
}

func (w *watched) RequestProgress(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.dead {
		w.tell()
	}
	return nil
}

func (w *watched) Close() error { return nil }

// put writes as another node would.
func (w *watched) put(key, value string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.revision++
	w.tell(&clientv3.Event{Type: mvccpb.PUT, Kv: kv(key, value, w.revision)})
}

func (w *watched) tell(events ...*clientv3.Event) {
	w.answers <- clientv3.WatchResponse{Header: &etcdserverpb.ResponseHeader{Revision: w.revision}, Events: events}
}

// followWatched follows with node1 until the test ends. ended receives how that ended.
func followWatched(t *testing.T, emit func(control.State, error)) (s *Source, w *watched, ended <-chan error) {
	t.Helper()
	s, err := New(Options{Endpoints: []string{"http://192.168.77.101:2379"}, Prefix: "/weft", Node: "node1", ClusterCIDRs: prefixes("10.244.0.0/16"), MaskIPv4: 24})
	if err != nil {
		t.Fatal(err)
	}
	s.Register(selfOf("node1"))
	w = &watched{answers: make(chan clientv3.WatchResponse, 10000), revision: 20}
	r := newRun(s, nil, emit)
	r.listing = newListing(&s.options, answer(w.revision, kv("nodes/node1", entryOf("node1", "10.244.1.0/24"), 3), kv("podcidrs/v4/node1", "10.244.1.0/24", 3)), nil)
	f := follower{run: r, client: &clientv3.Client{Watcher: w}}
	ctx, cancel := context.WithCancel(t.Context())
	end, done := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(done)
		end <- f.follow(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return s, w, end
}

// One node writes all the time: the others' States must not take all of their time.
func TestOneWriterDoesNotSetThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const took, during = 400 * time.Millisecond, 20 * time.Second
		var states atomic.Int64
		_, w, _ := followWatched(t, func(control.State, error) {
			time.Sleep(took)
			states.Add(1)
		})
		for i := range during / (5 * time.Millisecond) {
			time.Sleep(5 * time.Millisecond)
			w.put("nodes/node2", fmt.Sprint(i))
		}
		if n, most := states.Load(), int64(during/(2*took))+1; n > most || n < most/2 {
			t.Errorf("%d States of %v each in %v; want %d at most", n, took, during, most)
		}
	})
}

func TestAWatchIsNotDeadBecauseAStateTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, w, ended := followWatched(t, func(control.State, error) { time.Sleep(silence + time.Second) })
		for i := range 30 {
			w.put("nodes/node2", fmt.Sprint(i))
			select {
			case err := <-ended:
				t.Fatal(err)
			case <-time.After(10 * time.Second):
			}
		}
	})
}

func TestDeadWatchIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w, ended := followWatched(t, func(control.State, error) {})
		w.mu.Lock()
		w.dead = true
		w.mu.Unlock()
		for range 20 {
			s.Register(selfOf("node1"))
			select {
			case err := <-ended:
				if err == nil || err.Error() != "the watch is silent" {
					t.Error(err)
				}
				return
			case <-time.After(time.Second):
			}
		}
		t.Error("it is relied upon after 20 s")
	})
}
