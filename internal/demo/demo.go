package main

import (
	"path/filepath"

	"weft/internal/config"
	"weft/internal/stage"
	"weft/internal/testnet"
)

const (
	nodeCount   = 3
	podsPerNode = 2
)

// demo is the state that the steps hand on.
type demo struct {
	*stage.Demo

	// control is where the nodes' list comes from: file or etcd.
	control string

	cluster *testnet.Cluster
	etcd    *testnet.Etcd // nil with a file
	servers *servers

	// pods are in the order in which tables show them.
	pods []*testnet.Pod

	// probes are those of the first pod, and then of the others, to all.
	probes []*stage.Probe
}

func (d *demo) steps() []stage.Step {
	return []stage.Step{
		{Title: "The topology", Show: d.drawTopology},
		{Title: "Bring it up", Show: d.bringUp},
		{Title: "What can be read on the underlay", Show: d.showUnderlay},
		{Title: "Probes between all pods and hosts", Show: d.showReachability},
		{Title: "Which address the other side sees", Show: d.showSourceAddresses},
		{Title: "How fast a TCP stream is between nodes", Show: d.measureThroughput},
		{Title: "A node joins while pods are talking", Show: d.joinNode},
		{Title: "A pod is recreated", Show: d.recreatePod},
		{Title: "What weft reports", Show: d.showMetrics},
	}
}

func (d *demo) inEtcd() bool { return d.control == string(config.SourceEtcd) }

func (d *demo) hints() [][2]string {
	node := d.Net.Nodes()[0]
	enter, weft := "ip netns exec "+d.Net.Name(), filepath.Join(d.Bin, "weft")
	return [][2]string{
		{enter + "-node1 ip route", "a node's routes"},
		{enter + "-a1 bash", "a shell in a pod"},
		{enter + "-node1 " + weft + " --socket " + node.Socket() + " status", "a daemon's state; as well: peers, explain, events, …"},
		{enter + "-node1 " + weft + " doctor --config " + filepath.Join(node.Dir(), "weft.yaml"), "checks of a node"},
		{"ls " + node.Dir(), "its files and log"},
	}
}
