package status

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"weft/drop"
	"weft/internal/hostnet"
)

// Problem is something that is wrong.
type Problem struct {
	// Kind is how `weft status` begins its line: PROBLEM, WARNING or DROPS.
	Kind string `json:"kind"`

	// Code is a warning's, a drop reason, a counter of the guard table, or what is the matter.
	Code string `json:"code"`

	// Degrades says that pods may suffer from it now.
	Degrades bool `json:"degrades"`

	// Text says what is wrong, and after a semicolon what to do.
	Text string `json:"text"`

	summary string // the same in a few words, if it degrades
}

// The kinds of problems.
const (
	KindProblem = "PROBLEM"
	KindWarning = "WARNING"
	KindDrops   = "DROPS"
)

// degrading are the warnings about what pods suffer from.
var degrading = map[string]struct {
	summary string // in a few words
	packets bool   // it keeps packets from pods
}{
	"cluster_overlap":     {"a local network overlaps the cluster CIDRs", true},
	"cni_network":         {"new pods are on another network", false},
	"host_forward_filter": {"another program's filter drops pods' packets", true},
	"host_input_filter":   {"another program's filter drops nodes' or pods' packets", true},
	"host_routing_rule":   {"another program's routing rule diverts pods' packets", true},
	"key_change_held":     {"a node's new key is not accepted", false},
	"lane_cut_off":        {"a lane's packets to a peer get lost", false},
	"path_loss":           {"a path loses packets", false},
	"pool_exhausted":      {"no pod address is free", false},
	"state_dir":           {"leases can't be written", false},
	"stranded_pod":        {"a pod is stranded", false},
}

// KeepsPackets reports whether a warning with this code is about what keeps packets from this node's
// pods, whatever their peer.
func KeepsPackets(code string) bool { return degrading[code].packets }

// sufferedDrops are the reasons for drops that a fault of a node or the underlay causes. The others
// can be caused by what pods, or hosts that are no peers, send.
var sufferedDrops = []drop.Reason{
	drop.TUNQueueFull, drop.DestinationLocal, drop.NoKeys, drop.TooBig, drop.Unreachable, drop.SendRefused, drop.SendFailed,
	drop.ReceiveQueueFull, drop.WriteRefused, drop.Unreadable,
}

// NotYet is the error of a part that weftd has not come to.
const NotYet = "not yet: weftd is starting"

// Bounds of what a summary and the first lines of a report name.
const (
	mostPeersNamed = 5
	nearlyFull     = 90 // percent of a pool
)

// Diagnose fills in the problems and the summary.
func (r *Report) Diagnose() {
	all := slices.Concat(r.peerProblems(), r.listProblems(), r.partProblems(), r.warningProblems(), r.leaseProblems(), r.dropProblems())
	r.Problems = append([]Problem{}, all...) // no null in JSON
	slices.SortStableFunc(r.Problems, func(a, b Problem) int { return -cmp.Compare(rank(a), rank(b)) })
	var degraded []string
	warnings := 0
	for _, p := range r.Problems {
		if p.Kind != KindDrops { // a few packets are dropped at each start
			warnings++
		}
		if p.Degrades && !slices.Contains(degraded, p.summary) {
			degraded = append(degraded, p.summary)
		}
	}
	switch {
	case !r.Ready:
		r.Summary = "NOT READY: " + r.NotReady
	case len(degraded) > 0:
		r.Summary = "DEGRADED: " + strings.Join(degraded, "; ")
	case warnings == 1:
		r.Summary = "ready, 1 warning"
	case warnings > 1:
		r.Summary = fmt.Sprintf("ready, %d warnings", warnings)
	default:
		r.Summary = "ready"
	}
}

func rank(p Problem) int {
	if p.Degrades {
		return 1
	}
	return 0
}

func (r *Report) peerProblems() (all []Problem) {
	var down []Peer
	for _, p := range r.Peers {
		if p.Unreachable() {
			down = append(down, p)
		}
	}
	summary := fmt.Sprintf("%d of %d peers unreachable", len(down), len(r.Peers))
	for i, p := range down {
		if i == mostPeersNamed {
			all = append(all, Problem{KindProblem, "peers_unreachable", true, fmt.Sprintf("%d more peers are unreachable; `weft peers` gives the reasons", len(down)-i), summary})
			break
		}
		all = append(all, Problem{KindProblem, "peers_unreachable", true, fmt.Sprintf("peer %s is unreachable: %s", p.Name, p.Reason()), summary})
	}
	for _, p := range r.Peers {
		if p.Path != nil && p.Path.Silent && !p.Unreachable() {
			all = append(all, Problem{KindProblem, "data_path", true, fmt.Sprintf("peer %s has keys, but does not answer probes on the data path, so packets may get lost; run `weft probe` on both nodes", p.Name), "a peer's data path is silent"})
			if len(all) > 2*mostPeersNamed {
				break
			}
		}
	}
	return all
}

func (r *Report) listProblems() (all []Problem) {
	if r.State.Rejected != "" {
		all = append(all, Problem{KindProblem, "list_rejected", false, "the list of nodes is NOT UP TO DATE: " + r.State.Rejected, ""})
	}
	if r.State.RejectedNodes != "" {
		all = append(all, Problem{KindProblem, "nodes_rejected", false, "REJECTED nodes: " + r.State.RejectedNodes, ""})
	}
	return all
}

func (r *Report) partProblems() (all []Problem) {
	news := func(p Part) bool { return p.Error != "" && p.Error != NotYet && p.Error != r.NotReady }
	if news(r.Guard) {
		all = append(all, Problem{KindProblem, "guard", true, "the guard table is not as it must be: " + r.Guard.Error + "; see weftd's log (journalctl -u weftd)", "no guard table"})
	}
	if news(r.Host) {
		all = append(all, Problem{KindProblem, "host", true, "the host's network is not as it must be: " + r.Host.Error, "the host's network is not as it must be"})
	}
	if news(r.Conflist) {
		all = append(all, Problem{KindProblem, "conflist", false, "the conflist is not as it must be: " + r.Conflist.Error, ""})
	}
	return all
}

func (r *Report) warningProblems() (all []Problem) {
	for _, w := range r.Warnings {
		if w.Code == "peers_unreachable" {
			continue // peerProblems names each
		}
		summary := degrading[w.Code].summary
		all = append(all, Problem{KindWarning, w.Code, summary != "", w.Text, summary})
	}
	return all
}

func (r *Report) leaseProblems() (all []Problem) {
	for _, trouble := range r.Leases.Unreconciled {
		all = append(all, Problem{KindProblem, "lease", false, "NOT RECONCILED: " + trouble, ""})
	}
	for _, p := range r.Leases.Pools {
		if p.Size > 0 && p.Leased < p.Size && p.Leased*100/p.Size >= nearlyFull {
			all = append(all, Problem{KindProblem, "pool_nearly_exhausted", false,
				fmt.Sprintf("%d of %d %s pod addresses are leased; remove pods, or give the node more addresses", p.Leased, p.Size, p.Family), ""})
		}
	}
	return all
}

func (r *Report) dropProblems() (all []Problem) {
	for _, name := range slices.Sorted(maps.Keys(r.RecentDrops)) {
		reason := drop.Parse(name)
		if reason == drop.Congestion { // a signal to the sender
			continue
		}
		p := Problem{Kind: KindDrops, Code: name, Text: dropText("weftd", r.RecentDrops[name], name, reason.Explain().What, reason.Explain().Remedy)}
		if slices.Contains(sufferedDrops, reason) {
			p.Degrades, p.summary = true, "weftd drops packets"
		}
		all = append(all, p)
	}
	for _, name := range slices.Sorted(maps.Keys(r.RecentGuardDrops)) {
		e := hostnet.Explain(name)
		all = append(all, Problem{Kind: KindDrops, Code: name, Text: dropText("the guard table", r.RecentGuardDrops[name], name, e.What, e.Remedy)})
	}
	return all
}

func dropText(by string, n uint64, name, what, remedy string) string {
	packets := "packets"
	if n == 1 {
		packets = "packet"
	}
	return fmt.Sprintf("%s dropped %d %s in the last minute, %s: %s; %s", by, n, packets, name, what, remedy)
}
