package handshake_test

import (
	"runtime"
	"testing"
	"time"

	"weft/encap/sealed/handshake"
	"weft/internal/testnet"
)

// When idle, they cost one little memory.
func TestManyNodesAgreeWithOneAtOnce(t *testing.T) {
	others := testnet.Sampled(100, 500)
	nodes := newNodes(t, 1+others)
	one := nodes[0]
	acquaint(nodes...)
	before := heap()

	began := time.Now()
	for _, n := range nodes[1:] {
		go n.send(one.self, "hello")
	}
	up := func(state handshake.State) (n int) {
		for _, s := range one.manager.Status() {
			if s.State == state {
				n++
			}
		}
		return n
	}
	eventually(t, "all are up", func() bool { return up(handshake.Up) == others })
	t.Logf("%d nodes are up after %s; heap for both ends of a connection: %d KB", others, time.Since(began).Round(time.Millisecond), (heap()-before)/others>>10)
	if failed := one.manager.Counts().Failed; failed > 0 {
		t.Errorf("%d handshakes of the one failed", failed)
	}
	var failed, refused uint64
	for _, n := range nodes[1:] {
		failed += n.manager.Counts().Failed
		refused += n.manager.Counts().Refused
	}
	t.Logf("of the others' dials %d failed and %d were refused", failed, refused)
	if failed > uint64(10*others) { // on a machine that is busy with other work, some do
		t.Errorf("%d dials failed", failed)
	}

	closeIdle := func() {
		for _, n := range nodes {
			n.manager.CloseIdle()
		}
	}
	perPeer := 0
	eventually(t, "all are idle, and take less than 20 KB", func() bool {
		closeIdle()
		time.Sleep(500 * time.Millisecond) // QUIC answers late packets of a closed connection for a while
		perPeer = (heap() - before) / others
		return up(handshake.Idle) == others && perPeer <= 20<<10
	})
	t.Logf("heap for both ends of an idle peer: %d bytes", perPeer)
	if n := runtime.NumGoroutine(); n > 20*others {
		t.Errorf("%d goroutines", n)
	}
}

// heap is how many bytes are in use.
func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
