package scale

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"weft/benchmarks/result"
	"weft/drop"
	"weft/encap/vxlan"
	"weft/encap/vxlan/vxlantest"
	"weft/packet/packettest"
	"weft/router"
)

// flows is how many different packets go each way, to and from prefixes at random.
const flows = 4096

// rig is a router at work: one lane between two fakes.
type rig struct {
	size   size
	router *router.Router
	queue  *queue
	conn   *conn
	stop   context.CancelFunc
	ended  chan error
}

func startRig(tb testing.TB, s size, pace time.Duration) *rig {
	tb.Helper()
	nodes := s.cluster(9338)
	random := rand.New(rand.NewPCG(3, 4))
	var outbound, inbound []load
	for i := range flows {
		ipv6, peer := i%2 == 1, 1+random.IntN(s.nodes-1)
		own, other := s.addr(0, 0, ipv6), s.addr(peer, random.IntN(s.prefixes/2), ipv6)
		outbound = append(outbound, load{bytes: packettest.UDP(own, other, 64)})
		inbound = append(inbound, load{bytes: vxlantest.Datagram(packettest.UDP(other, own, 64), nodes[peer], nodes[0]), from: nodes[peer].Endpoint})
	}
	r := &rig{size: s, queue: newQueue(outbound, pace), conn: newConn(inbound, pace), ended: make(chan error, 1)}
	r.router = router.New([]router.Lane{{Queue: r.queue, Codec: vxlan.New(1), Conn: r.conn}}, newTable(tb, nodes))
	ctx, stop := context.WithCancel(tb.Context())
	r.stop = stop
	go func() { r.ended <- r.router.Run(ctx) }()
	return r
}

// replace publishes one new table after the other, each built from a new State as a
// control source gives it, while more are wanted. It returns how many there were.
func (r *rig) replace(tb testing.TB, more func(n int) bool) (n int) {
	tb.Helper()
	for ; more(n); n++ {
		r.router.Publish(newTable(tb, r.size.cluster(uint16(10000+n%1000))))
	}
	return n
}

// finish stops the feeds, waits for the router to be done with what it has, and fails
// the test unless every packet arrived.
func (r *rig) finish(tb testing.TB) {
	tb.Helper()
	close(r.queue.stopped)
	close(r.conn.stopped)
	<-r.queue.idle
	<-r.conn.idle
	r.stop()
	if err := <-r.ended; err != nil {
		tb.Fatal(err)
	}
	stats := r.router.Stats()
	if r.conn.sent != r.queue.batches*perBatch || r.queue.written != r.conn.batches*perBatch {
		tb.Errorf("of %d packets read %d were sent, of %d received %d were written",
			r.queue.batches*perBatch, r.conn.sent, r.conn.batches*perBatch, r.queue.written)
	}
	for _, reason := range drop.All() {
		if n := stats.Drops[reason]; n > 0 {
			tb.Errorf("%d packets were dropped: %s", n, reason)
		}
	}
	if r.conn.mixed != nil {
		tb.Error(r.conn.mixed)
	}
}

func TestReplacingTheTableLosesNoPacket(t *testing.T) {
	for _, tt := range []struct {
		size
		tables int
	}{{largest, 100}, {million, 4}} {
		t.Run(tt.name, func(t *testing.T) {
			r := startRig(t, tt.size, 0)
			r.replace(t, func(n int) bool { return n < tt.tables })
			r.finish(t)
			t.Logf("%d packets out, %d in", r.conn.sent, r.queue.written)
			if r.conn.sent == 0 || r.queue.written == 0 {
				t.Error("that is too few to tell")
			}
		})
	}
}

// BenchmarkBatch measures how long a batch of 64 packets waits for the router and is
// worked on, while the table stays and while it is replaced without a pause. The
// router's two goroutines, the replacing and the garbage collector share the processors.
func BenchmarkBatch(b *testing.B) {
	for _, s := range sizes {
		b.Run(s.name+"/still", func(b *testing.B) { batches(b, s, false) })
		b.Run(s.name+"/replaced", func(b *testing.B) { batches(b, s, true) })
	}
}

const (
	// pace makes up to 640,000 packets a second each way: a good part of one processor,
	// so that there is something to disturb, and a rest to build tables with.
	pace = 100 * time.Microsecond

	// during is how long each of them runs: a count of batches would say nothing about
	// tables that take a second to build.
	during = 4 * time.Second
)

func batches(b *testing.B, s size, replaced bool) {
	for b.Loop() {
		r := startRig(b, s, pace)
		started := time.Now()
		n := r.replace(b, func(int) bool { return replaced && time.Since(started) < during })
		time.Sleep(during - time.Since(started))
		r.finish(b)
		b.ReportMetric(float64(n)/during.Seconds(), "tables/s")
		b.ReportMetric(float64(r.queue.batches+r.conn.batches)*perBatch/during.Seconds()/1e6, "Mpackets/s")
		reportPercentiles(b, "out", r.queue.took)
		reportPercentiles(b, "in", r.conn.took)
	}
	b.ReportMetric(0, "ns/op") // of no interest: it is during
}

func reportPercentiles(b *testing.B, direction string, took []time.Duration) {
	for name, percent := range map[string]float64{"p50": 50, "p99": 99, "p99.9": 99.9, "max": 100} {
		b.ReportMetric(float64(result.Percentile(took, percent))/float64(time.Microsecond), name+"-"+direction+"-µs")
	}
}
