package probe

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"weft/peer"
)

const deviceMTU = 1440

// world is a node whose prober probes one peer over a path of the test's making, on a fake clock.
type world struct {
	*Prober
	t *testing.T

	mu     sync.Mutex // guards what follows
	peer   *peer.Peer
	sent   int  // requests
	silent bool // the peer answers nothing
	active bool // packets leave for it

	// loses says whether the path loses a datagram of so many bytes of the lane, and losesInRun whether
	// it loses the i-th of a run.
	loses      func(lane, size int) bool
	losesInRun func(lane, i int) bool
	runs       bool // packets go out in runs
	rtt        time.Duration
	held       time.Duration // how long Send holds the caller after the message has left
}

// inWorld runs test in a bubble with a prober of so many lanes.
func inWorld(t *testing.T, lanes int, test func(w *world)) {
	t.Helper()
	inWorldAfter(t, nil, nil, lanes, test)
}

// inWorldAfter is inWorld where another process has found out that paths are narrow, or lose runs.
func inWorldAfter(t *testing.T, narrow map[string]int, runsLost map[string]bool, lanes int, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, active: true, loses: func(int, int) bool { return false }, losesInRun: func(int, int) bool { return false }, rtt: 10 * time.Millisecond,
			peer: &peer.Peer{Name: "node2", Endpoint: netip.MustParseAddrPort("192.168.77.2:9338")}}
		w.Prober = New(w, lanes)
		w.Runs = func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.runs
		}
		w.Restore(narrow, runsLost)
		w.Update([]*peer.Peer{w.peer}, deviceMTU)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = w.Run(ctx) }()
		test(w)
		cancel()
		synctest.Wait()
	})
}

// set changes the world.
func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (w *world) requests() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent
}

func (w *world) Send(to *peer.Peer, lane int, messages ...[]byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if to != w.peer {
		w.t.Errorf("a message to %v", to)
	}
	if len(messages) > 1 && !w.runs {
		w.t.Errorf("a run of %d, and packets go out singly", len(messages))
	}
	for i, message := range messages {
		if message[0] == request {
			w.sent++
		}
		if len(message) > deviceMTU {
			return unix.EMSGSIZE
		}
		if w.silent || w.loses(lane, len(message)) || len(messages) > 1 && w.losesInRun(lane, i) {
			continue
		}
		answer := append([]byte{reply, 0, 0, 0}, message[4:messageLen]...)
		time.AfterFunc(w.rtt, func() { w.Receive(to, answer) })
	}
	time.Sleep(w.held)
	return nil
}

func (w *world) Active() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.active {
		return []string{w.peer.Name}
	}
	return nil
}

// after lets time pass, and returns what is known of the path then.
func (w *world) after(d time.Duration) Path {
	time.Sleep(d)
	synctest.Wait()
	return w.Paths()[w.peer.Name]
}

// expectMTU fails unless the path has the MTU after some time.
func (w *world) expectMTU(after time.Duration, want int) {
	w.t.Helper()
	if got := w.after(after); got.MTU != want {
		w.t.Errorf("MTU %d after %v, want %d (%+v)", got.MTU, after, want, got)
	}
}

// above loses larger datagrams, of all lanes.
func above(limit int) func(int, int) bool { return func(_, size int) bool { return size > limit } }

func TestFindsBlackHoleExactly(t *testing.T) {
	for _, limit := range []int{smallest, 1000, 1240, 1241, 1439} {
		inWorld(t, 2, func(w *world) {
			w.expectMTU(5*time.Second, deviceMTU)
			w.set(func() { w.loses = above(limit) })
			w.expectMTU(4*time.Second, limit)
			w.expectMTU(5*time.Minute, limit)
		})
	}
}

func TestFindsBlackHoleOfOneLane(t *testing.T) {
	inWorld(t, 4, func(w *world) {
		w.set(func() {
			w.loses = func(lane, size int) bool { return size > 1400 && lane == 1 || size > 1300 && lane == 3 }
		})
		w.expectMTU(10*time.Second, 1300)
		if got := w.Narrow(); got["node2"] != 1300 {
			t.Errorf("narrow: %v", got)
		}
	})
}

func TestRaisesMTUWhenPathIsRepaired(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.set(func() { w.loses = above(1300) })
		w.expectMTU(10*time.Second, 1300)
		w.set(func() { w.loses = above(1400) })
		w.expectMTU(raiseAfter+10*time.Second, 1400)
		w.set(func() { w.loses = above(9000) })
		w.expectMTU(raiseAfter+10*time.Second, deviceMTU)
		if got := w.Narrow(); len(got) > 0 {
			t.Errorf("narrow: %v", got)
		}
	})
}

// TestLossIsNoBlackHole: datagrams of any size get lost.
func TestLossIsNoBlackHole(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		random := rand.New(rand.NewPCG(1, 2))
		w.set(func() { w.runs, w.loses = true, func(int, int) bool { return random.Float64() < 0.2 } })
		for range 600 {
			if got := w.after(time.Second); got.MTU < deviceMTU || got.RunsLost {
				w.t.Fatalf("%+v", got)
			}
		}
		if got := w.after(0).Loss; got < 0.03 || got > 0.5 {
			t.Errorf("loss is %v", got)
		}
	})
}

// TestCongestionIsNoBlackHole: a full queue has room for small datagrams, and hardly for large ones.
func TestCongestionIsNoBlackHole(t *testing.T) {
	for _, most := range []float64{0.5, 0.9, 0.99} {
		inWorld(t, 2, func(w *world) {
			random := rand.New(rand.NewPCG(1, 2))
			w.set(func() {
				w.runs, w.loses = true, func(_, size int) bool { return random.Float64() < most*float64(size)/deviceMTU }
			})
			for range 600 {
				if got := w.after(time.Second); got.MTU < deviceMTU || got.RunsLost {
					w.t.Fatalf("%+v where up to %v of the largest get lost", got, most)
				}
			}
		})
	}
}

// TestFindsBlackHoleBehindLoss: what gets lost for another reason may make the MTU too small for a
// while, but never too large.
func TestFindsBlackHoleBehindLoss(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		random := rand.New(rand.NewPCG(1, 2))
		w.set(func() { w.loses = func(_, size int) bool { return size > 1240 || random.Float64() < 0.1 } })
		w.expectMTU(3*time.Minute, 1240)
	})
}

func TestPeerThatNeverAnswered(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.set(func() { w.silent = true })
		if got := w.after(10 * time.Minute); got.MTU != deviceMTU || !got.Unanswered || got.Silent || !got.Heard.IsZero() {
			t.Errorf("%+v", got)
		}
		before := w.requests()
		w.after(10 * time.Minute)
		if n := (w.requests() - before) / 2; n < 10 || n > 25 { // once in 30 s
			t.Errorf("%d rounds in ten minutes", n)
		}
		// It probes this node, so it is there, and knows probes.
		w.set(func() { w.silent, w.loses = false, above(1000) })
		w.Receive(w.peer, make([]byte, messageLen)) // malformed
		w.Receive(w.peer, append([]byte{request}, make([]byte, messageLen)...))
		w.expectMTU(10*time.Second, 1000)
	})
}

// A peer that probes this node, and whose answers don't arrive, is silent: it knows probes.
func TestPeerWhoseAnswersGetLost(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.set(func() { w.silent = true })
		asked := append([]byte{request}, make([]byte, messageLen)...)
		for range 20 {
			w.after(interval)
			w.Receive(w.peer, asked)
		}
		if got := w.after(0); !got.Silent || !got.Heard.IsZero() {
			t.Errorf("%+v", got)
		}
	})
}

// TestLaneThatIsCutOff: as by one of several links that is down.
func TestLaneThatIsCutOff(t *testing.T) {
	inWorld(t, 4, func(w *world) {
		random := rand.New(rand.NewPCG(1, 2))
		w.set(func() { w.loses = func(lane, _ int) bool { return lane == 1 || random.Float64() < 0.05 } })
		if got := w.after(time.Minute); !slices.Equal(got.Dead, []int{1}) || got.Silent || got.MTU != deviceMTU {
			t.Errorf("%+v", got)
		}
		w.set(func() { w.silent = true }) // that is no fault of a lane
		if got := w.after(time.Minute); len(got.Dead) > 0 || !got.Silent {
			t.Errorf("%+v", got)
		}
		w.set(func() { w.silent, w.loses = false, func(int, int) bool { return false } })
		if got := w.after(5 * time.Second); len(got.Dead) > 0 || got.Silent {
			t.Errorf("%+v", got)
		}
	})
}

// TestLossThatHurts: random loss is judged by many probes, and cuts no lane off. That a peer was away is no
// loss.
func TestLossThatHurts(t *testing.T) {
	for _, tc := range []struct {
		loss  float64
		lossy bool
	}{{0, false}, {0.02, false}, {0.3, true}} {
		inWorld(t, 2, func(w *world) {
			random := rand.New(rand.NewPCG(1, 2))
			w.set(func() { w.loses = func(int, int) bool { return random.Float64() < tc.loss } })
			for range 100 {
				got := w.after(time.Minute)
				if got.Lossy != tc.lossy || len(got.Dead) > 0 {
					t.Fatalf("with loss %v: %+v", tc.loss, got)
				}
			}
		})
	}
	inWorld(t, 2, func(w *world) {
		w.after(time.Minute)
		w.set(func() { w.silent = true })
		w.after(time.Minute)
		w.set(func() { w.silent = false })
		for range 60 {
			if got := w.after(time.Second); got.Lossy {
				t.Fatalf("after it was away: %+v", got)
			}
		}
	})
}

func TestPeerThatFallsSilent(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		if got := w.after(5 * time.Second); got.Silent || got.RTT != w.rtt || got.Loss != 0 {
			t.Errorf("%+v", got)
		}
		w.set(func() { w.silent = true })
		if got := w.after(15 * time.Second); !got.Silent || got.MTU != deviceMTU || got.Loss == 0 {
			t.Errorf("%+v", got)
		}
		w.set(func() { w.silent = false })
		if got := w.after(5 * time.Second); got.Silent {
			t.Errorf("%+v", got)
		}
	})
}

func TestProbesOnlyWhereePacketsLeave(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.set(func() { w.active = false })
		w.after(time.Hour)
		if n := w.requests(); n > 0 {
			t.Errorf("%d probes without packets", n)
		}
	})
}

func TestDeviceMTUChanges(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.set(func() { w.loses = above(1300) })
		w.expectMTU(10*time.Second, 1300)
		w.Update([]*peer.Peer{w.peer}, 1200)
		w.expectMTU(0, 1200)
		w.Update([]*peer.Peer{w.peer}, 1280)
		w.expectMTU(10*time.Second, 1280)
		w.Update([]*peer.Peer{w.peer}, 1400)
		w.expectMTU(10*time.Second, 1300)
	})
}

func TestPeerRoamsToBetterPath(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.set(func() { w.loses = above(1300) })
		w.expectMTU(10*time.Second, 1300)
		moved := *w.peer
		moved.Endpoint = netip.MustParseAddrPort("192.168.77.3:9338")
		w.set(func() { w.loses, w.peer = above(9000), &moved })
		w.Update([]*peer.Peer{w.peer}, deviceMTU)
		w.expectMTU(0, deviceMTU)
		w.expectMTU(10*time.Second, deviceMTU)
	})
}

func TestSurvey(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.set(func() { w.active = false })
		w.set(func() { w.loses = above(1300) })
		got, err := w.Survey(w.t.Context(), "node2", 5)
		if err != nil || got.MTU != 1300 || got.Largest != deviceMTU || got.Sent < 10 || got.Answered != got.Sent || got.Min != w.rtt || got.Average != w.rtt || got.Max != w.rtt {
			t.Errorf("%+v, %v", got, err)
		}
		w.set(func() { w.loses = above(9000) }) // a survey looks at once
		if got, err := w.Survey(w.t.Context(), "node2", 1); err != nil || got.MTU != deviceMTU {
			t.Errorf("%+v, %v", got, err)
		}
		w.set(func() { w.silent = true })
		if got, err := w.Survey(w.t.Context(), "node2", 3); err != nil || got.Sent != 6 || got.Answered != 0 || got.MTU != deviceMTU {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := w.Survey(w.t.Context(), "node3", 3); err == nil {
			t.Error("a node that is no peer was surveyed")
		}
	})
}

// TestReplyBeforeSendReturns measures the round trip all the same.
func TestReplyBeforeSendReturns(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.set(func() { w.held = 2 * w.rtt })
		if got, err := w.Survey(w.t.Context(), "node2", 3); err != nil || got.Answered == 0 || got.Min < w.rtt {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// TestSurveyOfPeerThatGoes ends.
func TestSurveyOfPeerThatGoes(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.set(func() { w.silent = true })
		time.AfterFunc(time.Second, func() { w.Update(nil, deviceMTU) })
		if got, err := w.Survey(w.t.Context(), "node2", 50); err != nil || got.Answered > 0 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}
