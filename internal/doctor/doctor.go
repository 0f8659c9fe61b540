// Package doctor checks a host for what weft needs of it and for what is in its way, with and
// without a running weftd. Each check says what it found and what to do.
//
// A check only looks: it changes nothing on the host, and its time is bounded. The checks work
// in the network namespace of the process.
package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"weft/internal/config"
	"weft/internal/version"
	"weft/internal/warning"
)

// Result is what came of a check.
type Result string

// The results, the worst first.
const (
	Failed  Result = "failed"  // pods can't be added, or lose packets, or will after the next restart
	Warning Result = "warning" // an operator should know, while pods work
	Skipped Result = "skipped" // it can't be known here, or it doesn't matter here
	OK      Result = "ok"
)

var results = []Result{Failed, Warning, Skipped, OK}

// Finding is what a check found. Where a check finds several faults, there is one for each.
type Finding struct {
	// Code is stable. Where weftd warns of the same fault it is the warning's code.
	Code   string `json:"code"`
	Result Result `json:"result"`
	Found  string `json:"found"`

	// Remedy is what to do about it, if anything.
	Remedy string `json:"remedy,omitempty"`
}

// Report is what all checks found: faults first, and causes before what follows from them. Of
// the warnings, those of the running weftd come first.
type Report struct {
	Version  string    `json:"version"`        // of weft, not of a running weftd
	Node     string    `json:"node,omitempty"` // empty if the configuration can't be read
	Result   Result    `json:"result"`         // the worst: failed, warning or ok
	Findings []Finding `json:"findings"`
}

// Count returns how many findings have a result.
func (r Report) Count(result Result) (n int) {
	for _, f := range r.Findings {
		if f.Result == result {
			n++
		}
	}
	return n
}

// Input says what to check.
type Input struct {
	// Config is that of ConfigPath, unless ConfigErr says why it can't be read.
	Config     config.Config
	ConfigPath string
	ConfigErr  error

	// Socket is where a running weftd answers.
	Socket string

	// Root is the folder with the host's files that are not weft's; tests have another than "/".
	Root string
}

// checkLimit bounds each check.
const checkLimit = 10 * time.Second

// check is one thing to look at.
type check struct {
	code string
	run  func(context.Context, *host) []Finding

	needs need
}

// need is what a check can't do without.
type need int

const (
	configuration need = 1 << iota // that is valid
	privileges                     // root's, above all CAP_NET_ADMIN: otherwise it would look at the rights of its caller
	nothing       need = 0
	both          need = configuration | privileges
)

// checks come in the order of causes: what one finds may be the reason for what a later one finds.
var checks = []check{
	{"config", checkConfig, nothing},
	{"capability", checkCapability, nothing},
	{"kernel", checkKernel, nothing},
	{"tun", checkTUN, privileges},
	{"nftables", checkNFT, nothing},
	{"guard_rules", checkGuardRules, both},
	{"config_trust", checkTrust, both},
	{"node_key", checkNodeKey, both},
	{"state_dir", checkStateDir, both},
	{"run_dir", checkRunDir, both},
	{"clock", checkClock, nothing},
	{"certificates", checkCertificates, configuration},
	{"udp_port", checkPort, both},
	{"cluster_overlap", checkOverlap, configuration},
	{"guard", checkGuard, both},
	{"host_forward_filter", checkForwardFilters, both},
	{"host_input_filter", checkInputFilters, both},
	{"host_routing_rule", checkRoutingRules, both},
	{"foreign_route", checkForeignRoutes, configuration},
	{"sysctl", checkSysctls, both},
	{"rp_filter", checkReversePath, configuration},
	{"accept_ra", checkRouterAdverts, configuration},
	{"bridge_netfilter", checkBridges, both},
	{"mtu", checkMTU, configuration},
	{"control_source", checkSource, both},
	{"node_list", checkList, both},
	{"cni_network", checkNetworks, configuration},
	{"cni_conf_dir", checkConfDir, configuration},
	{"cni_plugin", checkPlugin, configuration},
	{"cni_chain", checkChain, configuration},
	{"pool_exhausted", checkPool, configuration},
	{"leases", checkLeases, both},
	{"udp_gso", checkRuns, configuration},
	{"secret_readable", checkSecrets, configuration},
	{"etcd_in_clear", checkClear, configuration},
	{"networkd", checkNetworkd, nothing},
	{"network_manager", checkNetworkManager, nothing},
	{"systemd_unit", checkUnit, nothing},
	{"weftd", checkDaemon, configuration},
	{"peers_unreachable", checkPeers, configuration},
}

// Codes returns the codes of all checks.
func Codes() []string {
	codes := make([]string, len(checks))
	for i, c := range checks {
		codes[i] = c.code
	}
	return codes
}

// Run makes all checks at once.
func Run(ctx context.Context, in Input) Report {
	h := newHost(ctx, in)
	found := make([][]Finding, len(checks))
	var all sync.WaitGroup
	for i, c := range checks {
		all.Go(func() { found[i] = c.bounded(ctx, h) })
	}
	all.Wait()
	r := Report{Version: version.Version, Node: in.Config.Node, Findings: append(h.warnings(), slices.Concat(found...)...)}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Compare(slices.Index(results, a.Result), slices.Index(results, b.Result))
	})
	r.Result = OK
	if len(r.Findings) > 0 && r.Findings[0].Result != Skipped {
		r.Result = r.Findings[0].Result
	}
	return r
}

// bounded makes the check, unless it lacks what it needs.
func (c check) bounded(ctx context.Context, h *host) []Finding {
	var found []Finding
	switch {
	case c.needs&configuration != 0 && h.ConfigErr != nil:
		found = skipped("the configuration can't be read")
	case c.needs&privileges != 0 && h.prerequisites.Capability != nil:
		found = skipped("this process is not root")
	default:
		found = within(ctx, checkLimit, func(ctx context.Context) []Finding { return c.run(ctx, h) })
	}
	for i := range found {
		found[i].Code = cmp.Or(found[i].Code, c.code)
	}
	return found
}

// within doesn't wait for a system call that hangs, as on a file system whose server is
// unreachable.
func within(ctx context.Context, limit time.Duration, run func(context.Context) []Finding) []Finding {
	const grace = time.Second // for what ends with ctx to say why
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	done := make(chan []Finding, 1)
	go func() { done <- run(ctx) }()
	select {
	case found := <-done:
		return found
	case <-time.After(limit + grace):
		return warn(fmt.Sprintf("the host gave no answer in %s", limit), "look for a hanging disk, file system or program (dmesg)")
	}
}

func ok(format string, args ...any) []Finding {
	return []Finding{{Result: OK, Found: fmt.Sprintf(format, args...)}}
}

func skipped(format string, args ...any) []Finding {
	return []Finding{{Result: Skipped, Found: fmt.Sprintf(format, args...)}}
}

func warn(found, remedy string) []Finding {
	return []Finding{{Result: Warning, Found: found, Remedy: remedy}}
}

func fail(found, remedy string) []Finding {
	return []Finding{{Result: Failed, Found: found, Remedy: remedy}}
}

// of makes a finding of each line of an error or warning, which has its remedy after a semicolon.
func of(result Result, text string) (all []Finding) {
	for line := range strings.SplitSeq(text, "\n") {
		found, remedy, _ := strings.Cut(line, "; ")
		all = append(all, Finding{Result: result, Found: found, Remedy: remedy})
	}
	return all
}

// orOK makes a finding of each warning; without any, the text is what is right.
func orOK(result Result, warnings []warning.Warning, format string, args ...any) (all []Finding) {
	for _, w := range warnings {
		all = append(all, of(result, strings.ReplaceAll(w.Text, "\n", " "))...)
	}
	if len(all) == 0 {
		return ok(format, args...)
	}
	return all
}
