package main_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
	"golang.org/x/sys/unix"

	"weft/internal/testnet"
)

// fault is a row of the fault table: what an operator meets on a node, and where the true cause
// stands. internal/monitoring has each alert fire.
type fault struct {
	name string

	make  func(t *testing.T)
	again func(t *testing.T) // before each look, if it is not nil: as packets that weftd must miss
	undo  func(t *testing.T) // nil: weftd goes on warning of it

	// What must stand in the first five lines of `weft status` and of `weft doctor`, and in those of
	// `weft explain` for packet, if there is one.
	status, doctor string
	packet         []string
	explain        string

	// metric has this value, and the alert, whose expression is of it, is among the rules.
	metric, value, alert string
}

// head is the first five lines of a text.
func head(text string) string {
	lines := strings.SplitAfterN(text, "\n", 6)
	return strings.Join(lines[:min(5, len(lines))], "")
}

// expectFaults makes each fault on a node, waits until all says so, and undoes it.
func expectFaults(t *testing.T, node *testnet.Node, faults []fault) {
	t.Helper()
	for _, f := range faults {
		if !t.Run(f.name, func(t *testing.T) { f.expect(t, node) }) {
			return // what is left of the fault would be in the way of the next one
		}
	}
}

func (f fault) expect(t *testing.T, node *testnet.Node) {
	expectAlert(t, f.alert, f.metric)
	f.make(t)
	look := func(shown outcome, want string) error {
		if want == "" || strings.Contains(head(shown.stdout), want) {
			return nil
		}
		return fmt.Errorf("the first five lines don't say %q:\n%s%s", want, shown.stdout, shown.stderr)
	}
	eventually(t, "all to name the cause", func() error {
		if f.again != nil {
			f.again(t)
		}
		metrics, err := node.Metrics(t.Context())
		if err == nil && metrics[f.metric] != f.value {
			err = fmt.Errorf("%s is %q, want %s", f.metric, metrics[f.metric], f.value)
		}
		errs := []error{err, look(weft(t, node, "status"), f.status), look(examine(t, node), f.doctor)}
		if f.packet != nil {
			errs = append(errs, look(weft(t, node, append([]string{"explain"}, f.packet...)...), f.explain))
		}
		return errors.Join(errs...)
	})
	t.Logf("weft status begins with\n%sweft doctor begins with\n%s", head(weft(t, node, "status").stdout), head(examine(t, node).stdout))
	if f.undo == nil {
		return
	}
	f.undo(t)
	eventually(t, "the cause to be gone", func() error {
		if f.again != nil {
			f.again(t)
		}
		if shown := weft(t, node, "status"); strings.Contains(shown.stdout, f.status) {
			return errors.New(shown.stdout)
		}
		return nil
	})
}

// matcher is a condition on a label, as PromQL writes it.
var matcher = regexp.MustCompile(`([a-z_]+)(=~|!~|!=|=)"([^"]*)"`)

// expectAlert fails unless the rules have the alert, and its expression is of the metric.
func expectAlert(t *testing.T, alert, metric string) {
	t.Helper()
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "../../deploy/prometheus/weft-rules.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	name, rest, _ := strings.Cut(metric, "{")
	labels := map[string]string{}
	for _, m := range matcher.FindAllStringSubmatch(rest, -1) {
		labels[m[1]] = m[3]
	}
	selects := func(conditions string) bool {
		for _, m := range matcher.FindAllStringSubmatch(conditions, -1) {
			equal := regexp.MustCompile("^(?:" + m[3] + ")$").MatchString(labels[m[1]])
			if equal == strings.HasPrefix(m[2], "!") {
				return false
			}
		}
		return true
	}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if r.Alert != alert {
				continue
			}
			for _, s := range regexp.MustCompile(`\b`+name+`\b(?:\{([^}]*)\})?`).FindAllStringSubmatch(r.Expr, -1) {
				if selects(s[1]) {
					return
				}
			}
			t.Fatalf("the alert %s is not of %s, but of %s", alert, metric, r.Expr)
		}
	}
	t.Fatalf("there is no alert %s", alert)
}

// TestAnUnreachableEtcdIsNamed: the snapshot keeps the node going, and the source's error is named.
func TestAnUnreachableEtcdIsNamed(t *testing.T) {
	t.Parallel()
	c := startEtcdCluster(t, 1, testnet.EtcdOptions{Members: 1})
	expectFaults(t, c.Nodes()[0], []fault{{
		name: "control source unreachable, etcd", make: func(*testing.T) { c.etcd.Kill(1) },
		undo: func(t *testing.T) {
			if err := c.etcd.Start(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
		},
		status: "the list of nodes is NOT UP TO DATE: ", doctor: "control_source: ",
		metric: "weft_control_reachable", value: "0", alert: "WeftControlSourceUnreachable",
	}})
}

// sh makes or undoes a fault by a script.
func sh(at *testnet.Namespace, script string) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		run(t, at, "sh", "-ec", script)
	}
}

// TestHostFaultsAreNamed has faults of a host: one cluster has those of IPv4, another one those of IPv6.
func TestHostFaultsAreNamed(t *testing.T) {
	t.Parallel()
	t.Run("sealed", func(t *testing.T) {
		t.Parallel()
		cluster := newCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true, Configure: func(weft map[string]any) {
			if weft["node"] == "node1" { // which has two addresses for pods
				weft["ipam"] = map[string]any{"reserved": []string{"10.244.1.4/30", "10.244.1.8/29", "10.244.1.16/28", "10.244.1.32/27", "10.244.1.64/26", "10.244.1.128/25"}}
			}
		}})
		node := cluster.Nodes()[0]
		ownDisk(t, filepath.Join(node.Dir(), "state"))
		p := startPair(t, cluster)
		expectWell(t, node, "in a cluster that works")
		expectFaults(t, node, append(filterFaults(t, p, false), podFaults(node)...))
	})
	t.Run("vxlan", func(t *testing.T) {
		t.Parallel()
		p := startPair(t, newCluster(t, testnet.ClusterOptions{Nodes: 2}))
		expectFaults(t, p.node, filterFaults(t, p, true))
	})
}

// ownDisk gives a folder a disk of 4 MiB.
func ownDisk(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("weft-test", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// filterFaults are other programs' filters and rules, of a family.
func filterFaults(t *testing.T, p pair, v6 bool) []fault {
	packet := []string{addrOf(t, p.pod1, v6).String(), addrOf(t, p.pod2, v6).String()}
	ip, iptables, cluster := "ip -4", "iptables", "10.244.0.0/16"
	if v6 {
		ip, iptables, cluster = "ip -6", "ip6tables", "fd00:244::/32"
	}
	return []fault{
		{
			name: "FORWARD DROP", make: sh(p.node.Namespace, iptables+"-nft -P FORWARD DROP"), undo: sh(p.node.Namespace, iptables+"-nft -P FORWARD ACCEPT"),
			status: iptables + " chain FORWARD drops packets", doctor: "host_forward_filter: " + iptables + " chain FORWARD drops packets",
			packet: packet, explain: "dropped here by another program's filter, " + iptables + " chain FORWARD",
			metric: `weft_warnings{code="host_forward_filter"}`, value: "1", alert: "WeftForeignFilter",
		},
		{
			name:   "foreign policy rule",
			make:   sh(p.node.Namespace, fmt.Sprintf("%[1]s route add %[2]s dev eth0 table 100; %[1]s rule add pref 100 lookup 100", ip, cluster)),
			undo:   sh(p.node.Namespace, fmt.Sprintf("%[1]s rule del pref 100; %[1]s route flush table 100", ip)),
			status: "the routing rule of priority 100 sends packets to " + cluster + " through table 100",
			doctor: "host_routing_rule: the routing rule of priority 100 sends packets to " + cluster + " through table 100",
			packet: packet, explain: fmt.Sprintf("spoofed_by_pod: another program's route takes packets to %s elsewhere: %s dev eth0 table 100 ", packet[0], cluster),
			metric: `weft_warnings{code="host_routing_rule"}`, value: "1", alert: "WeftForeignRoutingRule",
		},
	}
}

// podFaults keep pods from being added, or this node from knowing others, on a node with two addresses for
// pods, of which one is taken, and a small disk.
func podFaults(node *testnet.Node) []fault {
	foreign, list, kept, full := filepath.Join(node.ConfDir(), "00-old.conf"), nodesFile(node), nodesFile(node)+".kept", filepath.Join(node.Dir(), "state", "full")
	return []fault{
		{
			name: "leases exhausted", make: func(t *testing.T) { addPod(t, node, "second") }, undo: func(t *testing.T) { deletePod(t, node, "second") },
			status: "no pod can be added: ", doctor: "pool_exhausted: no pod can be added: ",
			metric: `weft_pool_addresses{family="ipv4",state="free"}`, value: "0", alert: "WeftPoolExhausted",
		},
		{
			name: "disk full", make: sh(node.Namespace, "head -c 4m /dev/zero >"+full+" || true"), undo: sh(node.Namespace, "rm "+full),
			status: "pods can't be added or removed: the disk with " + filepath.Dir(full) + " is full", doctor: "the disk with " + filepath.Dir(full) + " is full",
			metric: `weft_warnings{code="state_dir"}`, value: "1", alert: "WeftStateDirUnwritable",
		},
		{
			name: "foreign conflist first",
			make: func(t *testing.T) { write(t, foreign, `{"cniVersion":"1.0.0","name":"old","type":"bridge"}`) }, undo: sh(node.Namespace, "rm "+foreign),
			status: "the container runtime uses " + foreign, doctor: "cni_network: the container runtime uses " + foreign,
			metric: `weft_warnings{code="cni_network"}`, value: "1", alert: "WeftOtherCNINetwork",
		},
		{
			name: "control source unreachable, a file", make: sh(node.Namespace, "mv "+list+" "+kept), undo: sh(node.Namespace, "mv "+kept+" "+list),
			status: "the list of nodes is NOT UP TO DATE: ", doctor: "control_source: ",
			metric: `weft_control_reachable`, value: "0", alert: "WeftControlSourceUnreachable",
		},
		{
			name: "guard flushed", make: sh(node.Namespace, "nft flush ruleset"),
			status: "another program removed or changed the guard table, once", doctor: "host_repaired: another program removed or changed the guard table, once",
			metric: `weft_host_repairs_total{object="guard_table"}`, value: "1", alert: "WeftHostRepairs",
		},
	}
}

func deletePod(t *testing.T, node *testnet.Node, name string) {
	t.Helper()
	if err := node.DeletePod(t.Context(), name); err != nil {
		t.Fatal(err)
	}
}
