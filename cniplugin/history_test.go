package cniplugin

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"

	"weft/cniplugin/leases"
	"weft/cniplugin/wiring"
	"weft/internal/testnet"
	"weft/ipam"
)

const (
	historyWorkers = 16
	historySlots   = 40 // pods that there can be at once
)

// historyCalls is how many calls of the plugin a history has.
var historyCalls = testnet.Sampled(600, 10_000)

// event is something that was seen of an attachment: that it has addresses, or that from
// now on it may have lost them.
type event struct {
	at         time.Time
	attachment string
	addresses  []netip.Addr // nil when they may be lost
}

// overlaps returns every moment in a history at which two attachments have one address.
// An attachment has what it was last seen to have until it may have lost it.
func overlaps(history []event) []string {
	history = slices.Clone(history)
	slices.SortStableFunc(history, func(a, b event) int { return a.at.Compare(b.at) })
	var found []string
	holder := map[netip.Addr]string{}
	for _, e := range history {
		for addr, h := range holder {
			if h == e.attachment {
				delete(holder, addr)
			}
		}
		for _, addr := range e.addresses {
			if h, held := holder[addr]; held {
				found = append(found, fmt.Sprintf("%s: %s is held by %s and by %s", e.at.Format(time.StampMicro), addr, h, e.attachment))
			}
			holder[addr] = e.attachment
		}
	}
	return found
}

func TestTheHistoryCheckerFindsASharedAddress(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	one, two := []netip.Addr{netip.MustParseAddr("10.0.0.1")}, []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1")}
	for name, tt := range map[string]struct {
		history []event
		want    int
	}{
		"one after the other":        {[]event{{at(1), "a", one}, {at(2), "a", nil}, {at(3), "b", one}}, 0},
		"written down late":          {[]event{{at(3), "b", one}, {at(1), "a", one}, {at(2), "a", nil}}, 0},
		"both at once":               {[]event{{at(1), "a", one}, {at(2), "b", two}, {at(3), "a", nil}}, 1},
		"another address since":      {[]event{{at(1), "a", one}, {at(2), "a", nil}, {at(2), "a", two[:1]}, {at(3), "b", one}}, 0},
		"seen again, never released": {[]event{{at(1), "a", one}, {at(2), "a", one}, {at(3), "b", one}}, 1},
	} {
		if got := overlaps(tt.history); len(got) != tt.want {
			t.Errorf("%s: found %q, want %d", name, got, tt.want)
		}
	}
}

// recorder runs calls of the plugin at random, and writes down what they did.
type recorder struct {
	*node
	list *libcni.NetworkConfigList

	// collecting is held for GC, which a runtime must not call beside ADD or DEL
	// (CNI specification, section 2, Lifecycle & Ordering).
	collecting sync.RWMutex

	mu      sync.Mutex
	left    int // calls to go
	history []event
	slots   []*slot
	counts  map[string]int
}

// slot is a pod that one worker at a time works on.
type slot struct {
	sync.Mutex
	pod       namespace
	number    int    // how many containers there have been
	container string // empty: none
}

// TestRandomHistorySharesNoAddress lets processes of the plugin loose on
// hardly more addresses than pods: ADDs, DELs and GCs, a fifth of them killed at random,
// and containers that the runtime forgets; and all the while weftd's reconciler.
func TestRandomHistorySharesNoAddress(t *testing.T) {
	n := newNode(t, "10.244.1.0/26", "fd00:244:1::/122")
	r := &recorder{node: n, list: n.list("1.1.0"), left: historyCalls, counts: map[string]int{}}
	for range historySlots {
		r.slots = append(r.slots, &slot{pod: newNamespace(t)})
	}
	var workers sync.WaitGroup
	for range historyWorkers {
		workers.Go(func() {
			cni := libcni.NewCNIConfigWithCacheDir([]string{binDir}, t.TempDir(), &nodeExec{node: n, killAfter: r.delay})
			for r.more() {
				if rand.IntN(50) == 0 {
					r.collect(cni)
					continue
				}
				r.visit(cni, r.slots[rand.IntN(len(r.slots))])
			}
		})
	}
	ended, stop := context.WithCancel(t.Context())
	var reconciler sync.WaitGroup
	reconciler.Go(func() {
		for ended.Err() == nil {
			r.reconcile()
			time.Sleep(20 * time.Millisecond)
		}
	})
	workers.Wait()
	stop()
	reconciler.Wait()
	if shared := overlaps(r.history); len(shared) > 0 {
		t.Errorf("%d times two pods had one address:\n%s", len(shared), strings.Join(shared[:min(10, len(shared))], "\n"))
	}
	leased := map[string][]netip.Addr{}
	for _, l := range n.leases() {
		leased[l.ContainerID] = l.Addresses
	}
	for _, s := range r.slots {
		if held := s.pod.addrs(t, "eth0"); len(held) == 2 {
			requireSameAddrs(t, held, leased[s.container])
		}
	}
	// A last GC frees what killed calls have left, and nothing is lost.
	if err := n.gc(nil, true); err != nil {
		t.Fatal(err)
	}
	n.requireNothingLeft()
	t.Logf("%v", r.counts)
	for _, what := range []string{"ADD", "DEL", "GC", "killed", "forgotten", "freed"} {
		if r.counts[what] < historyCalls/100 {
			t.Errorf("only %d times: %s", r.counts[what], what)
		}
	}
}

func (r *recorder) more() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left--
	return r.left >= 0
}

// delay is how long the next process may live; 0 is without limit.
func (r *recorder) delay() time.Duration {
	if rand.IntN(5) > 0 {
		return 0
	}
	return rand.N(30 * time.Millisecond)
}

func (r *recorder) record(attachment string, addresses []netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history = append(r.history, event{time.Now(), attachment, addresses})
}

func (r *recorder) count(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[what]++
}

// visit does one thing with a pod, as a runtime would. The pod's namespace stays, so what
// a forgotten container had is still in it.
func (r *recorder) visit(cni *libcni.CNIConfig, s *slot) {
	r.collecting.RLock()
	defer r.collecting.RUnlock()
	s.Lock()
	defer s.Unlock()
	switch {
	case s.container == "":
		s.number++
		s.container = fmt.Sprintf("%p-%d", s, s.number)
		r.add(cni, s)
	case rand.IntN(20) == 0:
		// A namespace that the runtime forgets as well goes, and the veth in it.
		r.record(s.container, nil)
		r.count("forgotten")
		s.container = ""
		s.pod.Close()
		s.pod = newNamespace(r.t)
	case rand.IntN(4) == 0:
		r.add(cni, s) // repeated
	default:
		r.record(s.container, nil)
		if r.run("DEL", func(ctx context.Context) error {
			return cni.DelNetworkList(ctx, r.list, runtimeConf(s.container, s.pod))
		}) == nil {
			s.container = ""
			if left := s.pod.addrs(r.t, "eth0"); len(left) > 0 {
				r.t.Errorf("after DEL the pod has %s", left)
			}
		}
	}
}

func (r *recorder) add(cni *libcni.CNIConfig, s *slot) {
	err := r.run("ADD", func(ctx context.Context) error {
		_, err := cni.AddNetworkList(ctx, r.list, runtimeConf(s.container, s.pod))
		return err
	})
	// Even a killed ADD may have given the pod its addresses. If it did not come to an end,
	// the reconciler takes them back at any time.
	held := s.pod.addrs(r.t, "eth0")
	if err == nil || r.complete(s.container) {
		r.record(s.container, held)
	}
	if err == nil && len(held) != 2 {
		r.t.Errorf("ADD succeeded, and the pod has %s", held)
	}
}

// complete reports whether a container's ADD completed.
func (r *recorder) complete(container string) bool {
	var alias string
	if err := r.Do(func(ns.NetNS) error {
		link, err := netlink.LinkByName(wiring.HostName(ipam.Attachment{ContainerID: container, IfName: "eth0"}))
		if _, notFound := errors.AsType[netlink.LinkNotFoundError](err); notFound {
			return nil
		}
		if err == nil {
			alias = link.Attrs().Alias
		}
		return err
	}); err != nil {
		r.t.Errorf("look up the veth of %s: %v", container, err)
	}
	return alias != ""
}

// run fails the test with errors that no call may end with.
func (r *recorder) run(what string, call func(context.Context) error) error {
	r.count(what)
	err := call(r.t.Context())
	var coded *types.Error
	switch {
	case err == nil:
	case errors.Is(err, errKilled):
		r.count("killed")
	case errors.As(err, &coded) && (coded.Code == CodeAttached || coded.Code == types.ErrTryAgainLater):
		r.count(fmt.Sprintf("code %d", coded.Code))
	default:
		r.t.Errorf("%s: %v", what, err)
	}
	return err
}

// collect calls GC with the list of the containers that there are.
func (r *recorder) collect(cni *libcni.CNIConfig) {
	r.collecting.Lock()
	defer r.collecting.Unlock()
	args := &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}}
	for _, s := range r.slots {
		args.ValidAttachments = append(args.ValidAttachments, types.GCAttachment{ContainerID: s.container, IfName: "eth0"})
	}
	_ = r.run("GC", func(ctx context.Context) error { return cni.GCNetworkList(ctx, r.list, args) })
}

// reconcile is what weftd does. It may free what a killed ADD has left before the runtime
// repeats the call.
func (r *recorder) reconcile() {
	err := r.Do(func(ns.NetNS) error {
		changes, err := leases.Reconcile(r.t.Context(), r.stateDir, "weft", nil)
		for _, c := range changes {
			r.count(string(c.Action))
		}
		return err
	})
	if err != nil {
		r.t.Errorf("Reconcile: %v", err)
	}
}
