// Package scale measures weft in clusters that no test machine holds: the forwarding
// table with 1,000,000 prefixes, and a router whose table is replaced again and again
// while it forwards. TUN device and sockets are fakes, everything else is weft's.
//
//	go test -bench . ./scale           as many threads run Go code as there are processors
//	go test -bench . -cpu 8 ./scale    more: a lane that comes back from the kernel while
//	                                   tables are built or memory is collected waits less
//
// There is nothing in it but tests and benchmarks.
package scale
