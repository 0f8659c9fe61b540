// Package e2e tests weft through what drives it on a node: containerd, by the interface
// that kubelet uses (CRI), cnitool, and Multus. It is a module of its own, so that their
// libraries are no business of weft's; Multus, in multus/, is another.
//
//	┌ node1 ───────────────────────────┐   ┌ node2 ──────
//	│ weftd        containerd ── runc  │   │ weftd  …
//	│   │ conflist   │ weft-cni,       │   │
//	│   └────────────┘ portmap, …      │   │
//	│  sandbox a   sandbox b           │   │
//	└──────────────────────────────────┘   └─────────────
//
// The nodes are those of internal/testnet. To containerd each looks like a machine of
// its own, with its own /run, /var/lib and processes; see testnet.Machine. Both are
// shared by all tests, and each test must leave them as if it had never run; see
// expectNothingLeft.
package e2e
