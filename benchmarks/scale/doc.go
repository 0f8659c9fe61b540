// Package scale measures weft in clusters that no test machine holds.
//
// Measure starts one real weftd, beside a real etcd or a real API server in which thousands
// of nodes are registered that do nothing else:
//
//	 etcd1, apiserver            node1
//	┌──────────────────────┐    ┌────────────────────────────┐
//	│ N simulated nodes    │    │ weftd ── routes, FIB,      │
//	│ joining, leaving, …  │    │          guard table       │
//	└──────────┬───────────┘    └─────────────┬──────────────┘
//	           └────────── Segment ───────────┘
//
// A simulated node writes what its weftd would write, and has no data path. With the source
// file, the list of nodes is a file, in which each may have many CIDRs.
//
// A change is active when the kernel says that its last route is there, or gone: weftd
// puts a change into its FIB first, then into the guard table, and then into the routes.
// The kernel reports a route by itself, at once. So nothing polls weftd, and what is
// measured is not longer than what a packet waits for.
//
// The benchmarks beside it have fakes for TUN device and sockets, everything else is weft's:
// the forwarding table with 1,000,000 prefixes, and a router whose table is replaced again
// and again while it forwards.
//
//	go test -bench . ./scale           as many threads run Go code as there are processors
//	go test -bench . -cpu 8 ./scale    more: a lane that comes back from the kernel while
//	                                   tables are built or memory is collected waits less
package scale
