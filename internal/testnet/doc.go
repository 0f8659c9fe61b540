// Package testnet builds network topologies in Linux network namespaces, for the
// tests, the demo and the benchmarks alike.
//
//	                outside (.254)
//	                   │
//	───────┬───────────┴────────┬───────  Segment: a bridge in its own namespace
//	       │ eth0               │ eth0
//	┌──────┴──────┐      ┌──────┴──────┐
//	│ Node node1  │      │ Node node2  │  a namespace and a weftd process
//	└──┬───────┬──┘      └──┬───────┬──┘
//	   │       │            │       │     wired by the weft-cni binary
//	 Pod a1  Pod b1       Pod a2  Pod b2  a namespace each
//
// A Net owns namespaces, processes and files. Close removes them all; when the
// owning process dies without it, the next New with the same prefix does. Cluster
// is the picture above, ready to run; Connect joins two namespaces without a
// bridge between them, as benchmarks want it. Etcd is a real etcd cluster on a
// segment, whose members can be killed and cut off; APIServer is a real kube-apiserver
// over one, and Kubernetes a whole one on the nodes of a Cluster. A Machine is a Node in
// which a container runtime finds itself alone.
//
// The package needs root, iproute2, ethtool and nsenter; Etcd needs etcd and etcdctl, a
// Machine containerd, runc and a static busybox, Kubernetes the distribution's CNI plugins
// and the programs that make kubernetes-build builds.
// It changes nothing in the namespace of its caller, and it never waits by sleeping
// for a fixed time: see Wait.
package testnet
