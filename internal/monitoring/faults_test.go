package monitoring

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"golang.org/x/sys/unix"

	"weft/internal/testnet"
)

// elsewhere are the alerts that another test makes fire.
var elsewhere = map[string]string{
	"WeftRekeyOverdue":  "testdata/rules_test.yaml alone: keys are overdue after ten minutes",
	"WeftNodesRejected": "TestAlertsWhereNodesRegister",
}

// In a healthy cluster no alert fires, and each panel shows something; then each alert fires by its
// fault, and with it the panels that show faults.
func TestAlertsAndPanelsBesideARealPrometheus(t *testing.T) {
	t.Parallel()
	l := newLab(t, 3)
	l.startThree()
	l.step("healthy", l.healthy)
	l.step("lost runs", l.loseRuns)
	l.step("paths", l.narrowPaths)
	l.step("drops", l.dropPackets)
	l.step("hosts", l.breakHosts)
	l.step("lists", l.breakLists)
	l.step("restarts", l.restart)
	l.step("dead nodes", l.killNodes)
	l.step("panels", func() { l.awaitPanels(nil) })
	l.step("no Prometheus", l.losePrometheus)
	for _, a := range alerts(t) {
		if l.fired[a.Alert] == (elsewhere[a.Alert] != "") {
			t.Errorf("%s has fired: %t", a.Alert, l.fired[a.Alert])
		}
	}
}

// Where nodes register, one that does so wrongly is rejected alone.
func TestAlertsWhereNodesRegister(t *testing.T) {
	t.Parallel()
	l := newLab(t, 1)
	etcd, err := l.network.AddEtcd(t.Context(), l.cluster.Segment, testnet.EtcdOptions{Members: 1})
	l.check(err)
	l.etcd = etcd
	l.start()
	l.step("a wrong node", func() {
		_, err := etcd.Ctl(t.Context(), "put", "/weft/nodes/node9", "rubbish")
		l.check(err)
		l.awaitAlerts(map[string]int{"WeftNodesRejected": 1})
	})
	l.step("no etcd", func() {
		etcd.Kill(1)
		l.awaitAlerts(map[string]int{"WeftControlSourceUnreachable": 1})
	})
}

func (l *lab) healthy() {
	l.Helper()
	for range 2 { // before a scrape and after it
		l.check(l.transfer(1 << 20))
		l.check(l.pods[1].ExecAll(l.Context(), "ping -c 1 -W 60 "+l.addr(1).String(), "ping -c 1 -W 60 "+l.addr(3).String()))
		l.prometheus.awaitScrape(l.T, 3)
	}
	rules, err := l.prometheus.Rules(l.Context(), nil)
	l.check(err)
	count := 0
	for _, g := range rules.Groups {
		count += len(g.Rules)
	}
	if want := len(alerts(l.T)); count != want {
		l.Errorf("Prometheus has %d rules, want %d", count, want)
	}
	// On a busy machine a scrape may fail now and then.
	l.prometheus.await(l.T, "no alert", func(ctx context.Context) error {
		firing, err := l.prometheus.series(ctx, "ALERTS")
		for _, a := range firing {
			// What this machine's kernel lacks is no fault of the cluster's.
			if !slices.Contains([]model.LabelValue{"udp_gso", "udp_buffers", "tun_joins"}, a.Metric["code"]) {
				err = errors.Join(err, fmt.Errorf("in a healthy cluster: %s", a.Metric))
			}
		}
		return err
	})
	failed, err := l.prometheus.series(l.Context(), "prometheus_rule_evaluation_failures_total > 0")
	l.check(err)
	if len(failed) > 0 {
		l.Errorf("rules fail: %v", failed)
	}
	// These may have nothing to show.
	l.awaitPanels([]string{"Alerts that fire", "Warnings by code", "Packets per second that weftd drops", "Packets per second that the guard table drops"})
}

// awaitPanels waits until every query of every panel returns something; those of mayBeEmpty need not.
func (l *lab) awaitPanels(mayBeEmpty []string) {
	l.Helper()
	all := panels(l.T)
	l.prometheus.await(l.T, "panels", func(ctx context.Context) (errs error) {
		for _, p := range all {
			for _, target := range p.Targets {
				query := strings.NewReplacer("$node", ".+", "$__rate_interval", "1m").Replace(target.Expr)
				got, err := l.prometheus.series(ctx, query)
				if err == nil && len(got) == 0 && !slices.Contains(mayBeEmpty, p.Title) {
					err = fmt.Errorf("%s: nothing for %s", p.Title, query)
				}
				errs = errors.Join(errs, err)
			}
		}
		return errs
	})
}

// loseRuns has the underlay lose what node1 sends in runs, as some kernels and cards do.
func (l *lab) loseRuns() {
	l.Helper()
	l.run(l.cluster.Segment.Namespace, `nft 'table bridge runs { chain c { type filter hook prerouting priority 0; ip saddr 192.168.77.1 udp dport 9338 meta length > 1600 drop; }; }'`)
	l.beside(func(context.Context) error { return l.transfer(128 << 10) }, func() {
		l.awaitAlerts(map[string]int{"WeftUDPGSOLost": 1})
	})
	l.run(l.cluster.Segment.Namespace, "nft delete table bridge runs")
}

// narrowPaths has the path from node1 to node2 lose large packets, and that to node3 many of any size.
func (l *lab) narrowPaths() {
	l.Helper()
	l.run(l.cluster.Segment.Namespace, `nft 'table bridge paths { chain c { type filter hook prerouting priority 0
		ip saddr 192.168.77.1 ip daddr 192.168.77.2 udp dport 9338 meta length > 1300 drop
		ip saddr 192.168.77.1 ip daddr 192.168.77.3 udp dport 9338 numgen random mod 10 < 4 drop; }; }'`)
	l.beside(func(ctx context.Context) error {
		for _, pod := range []int{2, 3} { // probes go where packets go
			_, _ = l.pods[0].Exec(ctx, "ping", "-c", "1", "-W", "1", l.addr(pod).String())
		}
		return nil
	}, func() { l.awaitAlerts(map[string]int{"WeftPathMTUReduced": 1, "WeftPathLossy": 1}) })
	l.run(l.cluster.Segment.Namespace, "nft delete table bridge paths")
}

// beside does something again and again while another function runs.
func (l *lab) beside(again func(context.Context) error, f func()) {
	l.Helper()
	ctx, cancel := context.WithCancel(l.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		var err error
		for err == nil && ctx.Err() == nil {
			err = again(ctx)
		}
		done <- err
	}()
	f()
	cancel()
	l.check(<-done)
}

func (l *lab) dropPackets() {
	l.Helper()
	const some, many = 1500, 12000
	pod1, node2 := l.pods[0].Namespace, l.node(2)
	l.send(pod1, netip.Addr{}, netip.MustParseAddrPort("10.244.50.5:9"), some)

	l.inject(2, []byte{0x45, 0, 0, 99, 0, 0, 0, 0, 64, 17, 0, 0, 10, 244, 2, 2, 10, 244, 1, 2}, some)               // longer than it is
	l.inject(2, []byte{0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 198, 51, 100, 9, 10, 244, 1, 2, 0, 0, 0, 0}, some) // not from here

	l.run(l.cluster.Outside, "ip address add 192.168.77.50/24 dev "+testnet.UnderlayLink)
	l.send(l.cluster.Outside, ghost.Addr(), node2.Entry().Endpoint, many)               // a peer's address
	l.send(l.cluster.Outside, testnet.OutsideUnderlay4, node2.Entry().Endpoint, 2*many) // no peer's

	l.run(node2.Namespace, "nft 'table inet mine { chain c { type filter hook output priority 0; ip daddr 192.168.77.1 udp dport 9338 drop; }; }'")
	l.send(l.pods[1].Namespace, netip.Addr{}, netip.AddrPortFrom(l.addr(1), 9), some)
	pid := l.node(3).PID() // too slow: it gets no processor time
	l.check(unix.Kill(pid, unix.SIGSTOP))
	l.send(l.pods[2].Namespace, netip.Addr{}, netip.AddrPortFrom(l.addr(1), 9), many)
	l.check(unix.Kill(pid, unix.SIGCONT))
	l.awaitAlerts(map[string]int{
		"WeftDropsOverload": 3, "WeftDropsNoKeys": 1, "WeftDropsHost": 2, "WeftDropsAddresses": 2, "WeftDropsUntrusted": 2, "WeftGuardDrops": 2, "WeftDropsUnderlay": 2,
		"WeftPeerUnreachable": 1,
	})
}

func (l *lab) breakHosts() {
	l.Helper()
	l.addPod(2) // has the last address
	l.file(1, "state/ipam/other.json", "{}")
	l.file(1, "cni/05-other.conflist", `{"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "bridge"}]}`)
	l.run(l.node(1).Namespace, `
		nft 'table inet filter { chain forward { type filter hook forward priority 0; policy drop; }; }'
		ip route add 10.244.0.0/16 via 192.168.77.254 table 77
		ip rule add pref 100 to 10.244.0.0/16 lookup 77
		ip link add other type bridge
		ip address add 10.244.99.1/24 dev other
		ip route replace 10.244.50.0/24 via 192.168.77.254`)
	// Another program fights weftd for its table.
	l.beside(func(ctx context.Context) error {
		_, _ = l.node(3).Exec(ctx, "nft", "delete", "table", "inet", "weft") // there may be none
		time.Sleep(50 * time.Millisecond)
		return nil
	}, func() {
		l.awaitAlerts(map[string]int{
			"WeftPoolNearlyExhausted": 2, "WeftPoolExhausted": 2, "WeftForeignFilter": 1, "WeftForeignRoutingRule": 1, "WeftClusterOverlap": 1,
			"WeftOtherCNINetwork": 1, "WeftHostFaulty": 1, "WeftNotReady": 1, "WeftLeasesUnreconciled": 1, "WeftGuardMissing": 3, "WeftHostRepairs": 3,
		})
	})
}

func (l *lab) breakLists() {
	l.Helper()
	list, state := filepath.Join(l.node(1).Dir(), "nodes.yaml"), filepath.Join(l.node(1).Dir(), "state")
	l.check(os.Rename(list, list+".away"))
	l.check(unix.Mount("none", state, "tmpfs", unix.MS_RDONLY, "")) // as after an error of the disk
	l.Cleanup(func() { _ = unix.Unmount(state, unix.MNT_DETACH) })
	changed := slices.Clone(l.entries)
	changed[2].Key = strings.Repeat("3", 64)
	changed[1].Endpoint = netip.AddrPortFrom(changed[1].Endpoint.Addr(), 9400) // not the one that it listens on
	l.list(2, changed)
	alone := slices.Clone(l.entries[2:3])
	alone[0].PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.33.0/24")}
	l.list(3, alone)
	l.awaitAlerts(map[string]int{
		"WeftControlSourceUnreachable": 1, "WeftStateDirUnwritable": 1, "WeftNodeKeyChanged": 2, "WeftWarning": 2, "WeftPeersKept": 3, "WeftStrandedPods": 3,
	})
	l.file(2, "nodes.yaml", "nodes: 7\n")
	l.awaitAlerts(map[string]int{"WeftNodeListRejected": 2})
}

// restart restarts a node's weftd again and again, at last another version, configured otherwise.
func (l *lab) restart() {
	l.Helper()
	for range 2 {
		l.check(l.node(3).Restart(l.Context()))
		l.prometheus.awaitScrape(l.T, 3)
	}
	l.build("v2")
	l.vxlan = "node3"
	l.check(l.node(3).Restart(l.Context()))
	l.awaitAlerts(map[string]int{"WeftRestarting": 3, "WeftVersionSkew": 0, "WeftEncapsulationMixed": 0})
}

// killNodes leaves node1 alone.
func (l *lab) killNodes() {
	l.Helper()
	l.node(3).Kill()
	// node2 can't send to node1 any more. Packets have weftd notice.
	for _, pod := range []int{2, 3} {
		l.send(l.node(1).Namespace, netip.Addr{}, netip.AddrPortFrom(l.addr(pod), 9), 10)
	}
	l.awaitAlerts(map[string]int{"WeftDown": 3, "WeftMostPeersUnreachable": 1})
}

// losePrometheus has Prometheus know no node any more.
func (l *lab) losePrometheus() {
	l.Helper()
	l.prometheus.configure(l.T, nil)
	l.prometheus.reload(l.T)
	l.awaitAlerts(map[string]int{"WeftAbsent": 0})
}
