package scale

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"

	"weft/fib"
)

var sizes = []size{largest, million}

// BenchmarkLookup asks for addresses in random order: of one prefix, as one flow
// does, of a thousand, and of all, as no user does: no cache helps then.
func BenchmarkLookup(b *testing.B) {
	for _, s := range sizes {
		table := newTable(b, s.cluster(9338))
		if table.Size() != s.nodes*s.prefixes {
			b.Fatalf("the table has %d prefixes", table.Size())
		}
		for _, family := range []string{"IPv4", "IPv6"} {
			addrs := s.addrs(family == "IPv6")
			rand.New(rand.NewPCG(1, 2)).Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
			b.Run(s.name+"/"+family+"/one flow", func(b *testing.B) { lookup(b, table, addrs[:1]) })
			b.Run(s.name+"/"+family+"/1000 flows", func(b *testing.B) { lookup(b, table, addrs[:1000]) })
			b.Run(s.name+"/"+family+"/all", func(b *testing.B) { lookup(b, table, addrs) })
		}
	}
}

func lookup(b *testing.B, table *fib.Table, addrs []netip.Addr) {
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, ok := table.Lookup(addrs[i]); !ok {
			b.Fatalf("%s has no owner", addrs[i])
		}
		if i++; i == len(addrs) {
			i = 0
		}
	}
}

// BenchmarkBuild builds a table out of nodes that are there already, and says how much
// memory the table itself takes.
func BenchmarkBuild(b *testing.B) {
	for _, s := range sizes {
		nodes := s.cluster(9338)
		b.Run(s.name, func(b *testing.B) {
			before := heap()
			var table *fib.Table
			for b.Loop() {
				table = newTable(b, nodes)
			}
			bytes := heap() - before
			b.ReportMetric(bytes/1e6, "MB")
			b.ReportMetric(bytes/float64(table.Size()), "B/prefix")
			runtime.KeepAlive(table)
		})
		runtime.KeepAlive(nodes)
	}
}

// heap returns how many bytes are in use.
func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
