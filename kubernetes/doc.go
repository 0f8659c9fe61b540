// Package kubernetes runs weft's tests in a real Kubernetes of its own programs:
// internal/testnet starts them in network namespaces, and this package is their client.
// It is a module of its own, so that Kubernetes is no business of weft's.
//
//	 apiserver              node1                      node2
//	┌────────────────────┐ ┌────────────────────────┐ ┌──────────────
//	│ kube-apiserver     │ │ kubelet    kube-proxy  │ │ kubelet …
//	│ kube-controller-…  │ │ containerd ── pods     │ │
//	│ kube-scheduler     │ │ weftd, if a test wants │ │
//	└─────────┬──────────┘ └───────────┬────────────┘ └──────┬───────
//	          └─── Segment ──── etcd1 ─┴─────────────────────┘
//
// Client applies manifests, makes tokens, waits, and runs programs in pods.
package kubernetes
