package cniplugin

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

const (
	tortureRounds  = 25 // batches of one ADD and one DEL for every slot
	tortureSlots   = 40 // pods of a batch: 1,000 in all
	tortureWorkers = 8  // operations at the same time
)

// torture runs pods through their lives, and knows which pod may have which address.
type torture struct {
	*node
	cni           *libcni.CNIConfig
	list          *libcni.NetworkConfigList
	adds, killed  atomic.Int64
	mu            sync.Mutex
	holders       map[netip.Addr]string // address to the container that has it
	durations     []time.Duration       // of the ADDs that were left alone
	deadly        atomic.Bool
	longestToKill time.Duration
}

// TestAThousandPodsWhoseADDsAndDELsAreKilledNeverShareAnAddress attaches and detaches
// pods in parallel, kills the plugin at random moments, and looks at what the pods'
// namespaces really have.
func TestAThousandPodsWhoseADDsAndDELsAreKilledNeverShareAnAddress(t *testing.T) {
	// Hardly more addresses than pods, so that each is used again and again.
	n := newNode(t, "10.244.1.0/26", "fd00:244:1::/120")
	tt := &torture{node: n, list: n.list("1.1.0"), holders: map[netip.Addr]string{}}
	tt.cni = libcni.NewCNIConfigWithCacheDir([]string{binDir}, t.TempDir(), &nodeExec{node: n, killAfter: tt.delay})
	var pods []namespace
	for range tortureSlots {
		pods = append(pods, newNamespace(t))
	}
	for round := range tortureRounds {
		// The first batch lives, to learn how long an ADD takes.
		tt.deadly.Store(round > 0)
		tt.each(pods, func(i int) { tt.add(containerOf(round, i), pods[i]) })
		tt.compare(pods)
		tt.each(pods, func(i int) { tt.del(containerOf(round, i), pods[i]) })
		tt.longestToKill = tt.median() * 3 / 2
	}
	n.requireNothingLeft()
	for _, pod := range pods {
		if addrs := pod.addrs(t, "eth0"); len(addrs) > 0 {
			t.Errorf("a pod still has %v", addrs)
		}
	}
	if got := tt.adds.Load(); got < 1000 {
		t.Errorf("%d pods were attached, want 1,000", got)
	}
	if got := tt.killed.Load(); got < 100 {
		t.Errorf("only %d operations were killed", got)
	}
	t.Logf("%d pods, %d operations killed, ADD p50 %s with %d at once", tt.adds.Load(), tt.killed.Load(), tt.median(), tortureWorkers)
}

func containerOf(round, slot int) string { return fmt.Sprintf("container-%d-%d", round, slot) }

// delay returns how long the next plugin may live; 0 is for ever.
func (tt *torture) delay() time.Duration {
	if !tt.deadly.Load() || rand.IntN(3) > 0 {
		return 0
	}
	return rand.N(tt.longestToKill)
}

// each runs do for every slot, some at the same time.
func (tt *torture) each(pods []namespace, do func(slot int)) {
	slots := make(chan int)
	var workers sync.WaitGroup
	for range tortureWorkers {
		workers.Go(func() {
			for slot := range slots {
				do(slot)
			}
		})
	}
	for slot := range pods {
		slots <- slot
	}
	close(slots)
	workers.Wait()
}

// add attaches a pod as a runtime does that is stubborn: it repeats an ADD that was
// killed, with a DEL before it or without.
func (tt *torture) add(containerID string, pod namespace) {
	rt := runtimeConf(containerID, pod)
	for {
		start := time.Now()
		result, err := tt.cni.AddNetworkList(tt.t.Context(), tt.list, rt)
		took := time.Since(start)
		// Even a killed ADD may have given the pod its addresses.
		held := pod.addrs(tt.t, "eth0")
		tt.claim(containerID, held)
		if err == nil {
			tt.note(took)
			tt.adds.Add(1)
			requireSameAddrs(tt.t, held, addrsOf(tt.t, result))
			return
		}
		var cniErr *types.Error
		complete := errors.As(err, &cniErr) && cniErr.Code == CodeAttached
		switch {
		case errors.Is(err, errKilled):
			tt.killed.Add(1)
			if rand.IntN(2) == 0 {
				tt.del(containerID, pod)
			}
		case complete:
			// The one before was killed when all was done, but before it could say so.
			tt.del(containerID, pod)
		default:
			tt.t.Errorf("ADD %s: %v", containerID, err)
			return
		}
	}
}

func (tt *torture) del(containerID string, pod namespace) {
	tt.unclaim(containerID)
	for {
		err := tt.cni.DelNetworkList(tt.t.Context(), tt.list, runtimeConf(containerID, pod))
		if err == nil {
			return
		}
		if !errors.Is(err, errKilled) {
			tt.t.Errorf("DEL %s: %v", containerID, err)
			return
		}
		tt.killed.Add(1)
	}
}

// claim fails if another live pod has one of addrs.
func (tt *torture) claim(containerID string, addrs []netip.Addr) {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	for _, addr := range addrs {
		if other, ok := tt.holders[addr]; ok && other != containerID {
			tt.t.Errorf("%s is held by %s and by %s", addr, other, containerID)
		}
		tt.holders[addr] = containerID
	}
}

// unclaim forgets a pod's addresses: from the beginning of its DEL, they may be free.
func (tt *torture) unclaim(containerID string) {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	for addr, holder := range tt.holders {
		if holder == containerID {
			delete(tt.holders, addr)
		}
	}
}

// compare demands that all pods' real addresses differ and are exactly those leased.
func (tt *torture) compare(pods []namespace) {
	tt.t.Helper()
	var have, leased []netip.Addr
	for _, pod := range pods {
		have = append(have, pod.addrs(tt.t, "eth0")...)
	}
	for _, lease := range tt.leases() {
		leased = append(leased, lease.Addresses...)
	}
	requireSameAddrs(tt.t, have, leased)
	slices.SortFunc(have, netip.Addr.Compare)
	if distinct := len(slices.Compact(have)); distinct != 2*len(pods) {
		tt.t.Errorf("%d pods have %d distinct addresses", len(pods), distinct)
	}
}

func (tt *torture) note(took time.Duration) {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	tt.durations = append(tt.durations, took)
}

func (tt *torture) median() time.Duration {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	sorted := slices.Sorted(slices.Values(tt.durations))
	if len(sorted) == 0 {
		return 0
	}
	return sorted[len(sorted)/2]
}
