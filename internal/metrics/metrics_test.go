package metrics_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/drop"
	"weft/internal/family"
	"weft/internal/metrics"
	"weft/internal/version"
	"weft/internal/warning"
	"weft/ipam"
	"weft/router"
)

// daemon is a weftd whose every number is another.
type daemon struct {
	sample           metrics.Sample
	unhealthy, unfit error
}

func newDaemon() *daemon {
	s := metrics.Sample{
		Node: "node1", Encapsulation: "sealed", Driver: "superpacket", Source: "etcd",
		Healthy: true, Ready: true, MTU: 1440, GSO: true, GRO: 107, JoinsTCP: true, Prefixes: 8,
		Stats: router.Stats{
			Outbound: router.Traffic{Packets: 101, Bytes: 102, SuperPackets: 105},
			Inbound:  router.Traffic{Packets: 103, Bytes: 104, SuperPackets: 106},
		},
		Lanes: []router.Stats{
			{Outbound: router.Traffic{Packets: 201, Bytes: 202}, Inbound: router.Traffic{Packets: 203, Bytes: 204}},
			{Outbound: router.Traffic{Packets: 211, Bytes: 212}, Inbound: router.Traffic{Packets: 213, Bytes: 214}},
		},
		Peers: metrics.Peers{
			Count: 43, States: map[string]int{"no_keys": 21, "up": 22, "unreachable": 0}, Reduced: 23,
			Each: []metrics.Peer{
				{Name: "node2", State: "up", Seen: time.UnixMilli(1_800_000_001_500), SentPackets: 301, SentBytes: 302, ReceivedPackets: 303, ReceivedBytes: 304,
					RTT: 250 * time.Microsecond, MTU: 1300, Reduced: true, Probed: true, Loss: 0.125},
				{Name: "node3", State: "no_keys"},
			},
		},
		Handshakes: &metrics.Handshakes{Agreed: 24, Failed: 25, Refused: 27, TurnedAway: 28, Unreachable: 26},
		List:       metrics.List{Current: true, Rejections: 9, RejectedNodes: true, Kept: 37, KeyChanges: 36},
		Control:    metrics.Control{Reachable: true, Contact: time.UnixMilli(1_800_000_000_250)},
		Host: metrics.Host{
			Guard: true, Drops: map[string]uint64{"bare_to_pod": 11, "spoofed_by_pod": 12},
			Repairs: map[string]uint64{"guard_table": 13, "bridge_table": 0, "network": 14},
		},
		Leases: &ipam.Usage{Leases: 31, CoolingDown: 32, Pools: []ipam.PoolUsage{
			{Family: family.IPv4, Size: 250, Leased: 41, CoolingDown: 42}, {Family: family.IPv6, Size: 1 << 63, Leased: 43, CoolingDown: 44},
		}},
		Reconciled: map[string]uint64{"freed": 33, "adopted": 34, "rebuilt": 0}, Unreconciled: 35,
		Warnings: []warning.Warning{{Code: "a"}, {Code: "b", Text: "1"}, {Code: "b", Text: "2"}},
	}
	for _, reason := range drop.All() {
		s.Stats.Drops[reason] = 1000 + uint64(reason)
	}
	s.Lanes[0].Drops[drop.NoRoute], s.Lanes[0].Drops[drop.Replayed], s.Lanes[1].Drops[drop.TooBig] = 3, 4, 5
	return &daemon{sample: s}
}

func (d *daemon) Sample() metrics.Sample      { return d.sample }
func (d *daemon) Warnings() []warning.Warning { return d.sample.Warnings }
func (d *daemon) Healthy() error              { return d.unhealthy }
func (d *daemon) Ready() error                { return d.unfit }

func get(t *testing.T, d *daemon, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	answer := httptest.NewRecorder()
	metrics.Handler(d).ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), method, path, nil))
	return answer
}

// ours returns the lines of /metrics that are weft's.
func ours(t *testing.T, d *daemon) []string {
	t.Helper()
	answer := get(t, d, http.MethodGet, "/metrics")
	if answer.Code != http.StatusOK {
		t.Fatalf("%d: %s", answer.Code, answer.Body)
	}
	var lines []string
	for line := range strings.Lines(answer.Body.String()) {
		if strings.HasPrefix(line, "weft_") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func TestEveryCountIsExported(t *testing.T) {
	want := []string{
		"weft_ready 1", "weft_healthy 1", `weft_warnings{code="a"} 1`, `weft_warnings{code="b"} 2`,
		fmt.Sprintf("weft_build_info{goversion=%q,version=%q} 1", runtime.Version(), version.Version),
		`weft_node_info{control="etcd",driver="superpacket",encapsulation="sealed",node="node1"} 1`,
		`weft_packets_total{direction="outbound"} 101`, `weft_bytes_total{direction="outbound"} 102`,
		`weft_packets_total{direction="inbound"} 103`, `weft_bytes_total{direction="inbound"} 104`,
		`weft_superpackets_total{direction="outbound"} 105`, `weft_superpackets_total{direction="inbound"} 106`,
		`weft_lane_packets_total{direction="outbound",lane="0"} 201`, `weft_lane_bytes_total{direction="outbound",lane="0"} 202`,
		`weft_lane_packets_total{direction="inbound",lane="0"} 203`, `weft_lane_bytes_total{direction="inbound",lane="0"} 204`,
		`weft_lane_packets_total{direction="outbound",lane="1"} 211`, `weft_lane_bytes_total{direction="outbound",lane="1"} 212`,
		`weft_lane_packets_total{direction="inbound",lane="1"} 213`, `weft_lane_bytes_total{direction="inbound",lane="1"} 214`,
		`weft_lane_drops_total{lane="0"} 7`, `weft_lane_drops_total{lane="1"} 5`,
		"weft_udp_gso 1", `weft_tun_joins{protocol="tcp"} 1`, `weft_tun_joins{protocol="udp"} 0`, "weft_udp_gro_datagrams_total 107",
		"weft_tun_mtu_bytes 1440", "weft_fib_prefixes 8", "weft_peers 43",
		`weft_peer_states{state="no_keys"} 21`, `weft_peer_states{state="up"} 22`, `weft_peer_states{state="unreachable"} 0`, "weft_peers_path_mtu_reduced 23",
		`weft_peer_state{peer="node2",state="up"} 1`, `weft_peer_state{peer="node3",state="no_keys"} 1`, `weft_peer_last_seen_timestamp_seconds{peer="node2"} 1.8000000015e+09`,
		`weft_peer_packets_total{direction="outbound",peer="node2"} 301`, `weft_peer_bytes_total{direction="outbound",peer="node2"} 302`,
		`weft_peer_packets_total{direction="inbound",peer="node2"} 303`, `weft_peer_bytes_total{direction="inbound",peer="node2"} 304`,
		`weft_peer_packets_total{direction="outbound",peer="node3"} 0`, `weft_peer_bytes_total{direction="outbound",peer="node3"} 0`,
		`weft_peer_packets_total{direction="inbound",peer="node3"} 0`, `weft_peer_bytes_total{direction="inbound",peer="node3"} 0`,
		`weft_peer_rtt_seconds{peer="node2"} 0.00025`, `weft_peer_path_mtu_bytes{peer="node2"} 1300`, `weft_peer_probe_loss_ratio{peer="node2"} 0.125`,
		`weft_handshakes_total{result="agreed"} 24`, `weft_handshakes_total{result="failed"} 25`,
		`weft_handshakes_total{result="refused"} 27`, `weft_handshakes_total{result="turned_away"} 28`,
		"weft_peer_unreachable_total 26",
		"weft_control_reachable 1", "weft_control_last_contact_timestamp_seconds 1.80000000025e+09",
		"weft_state_current 1", "weft_state_rejected_total 9", "weft_nodes_rejected 1", "weft_peers_kept 37", "weft_key_changes_total 36",
		"weft_guard_present 1", `weft_guard_drops_total{counter="bare_to_pod"} 11`, `weft_guard_drops_total{counter="spoofed_by_pod"} 12`,
		`weft_host_repairs_total{object="guard_table"} 13`, `weft_host_repairs_total{object="bridge_table"} 0`, `weft_host_repairs_total{object="network"} 14`,
		"weft_leases 31", `weft_pool_addresses{family="ipv4",state="leased"} 41`, `weft_pool_addresses{family="ipv4",state="cooling_down"} 42`, `weft_pool_addresses{family="ipv4",state="free"} 167`,
		`weft_pool_addresses{family="ipv6",state="leased"} 43`, `weft_pool_addresses{family="ipv6",state="cooling_down"} 44`, `weft_pool_addresses{family="ipv6",state="free"} 9.223372036854776e+18`,
		"weft_leases_unreconciled 35",
		`weft_reconciled_total{action="freed"} 33`, `weft_reconciled_total{action="adopted"} 34`, `weft_reconciled_total{action="rebuilt"} 0`,
	}
	for _, reason := range drop.All() {
		want = append(want, fmt.Sprintf("weft_drops_total{reason=%q} %d", reason, 1000+int(reason)))
	}
	got := ours(t, newDaemon())
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// stuck is a weftd that can't be read for a while.
type stuck struct {
	*daemon
	asked, answer chan struct{}
}

func (d stuck) Sample() metrics.Sample {
	d.asked <- struct{}{}
	<-d.answer
	return metrics.Sample{}
}

// However many scrape at once, four are served, and the others are refused at once.
func TestScrapesAreBounded(t *testing.T) {
	d := stuck{newDaemon(), make(chan struct{}), make(chan struct{})}
	handler := metrics.Handler(d)
	scrape := func() int {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
		return answer.Code
	}
	const most = 4
	served := make(chan int)
	for range most {
		go func() { served <- scrape() }()
		<-d.asked
	}
	if code := scrape(); code != http.StatusServiceUnavailable {
		t.Errorf("one more: %d", code)
	}
	for range most {
		d.answer <- struct{}{}
		if code := <-served; code != http.StatusOK {
			t.Errorf("one of the first: %d", code)
		}
	}
}

// counted counts how often it is asked for what grows with the number of peers.
type counted struct {
	*daemon
	asked int
}

func (d *counted) Sample() metrics.Sample {
	d.asked++
	return d.daemon.Sample()
}

func (d *counted) Warnings() []warning.Warning {
	d.asked++
	return d.daemon.Warnings()
}

// However often a local user asks, it costs weftd a bounded time.
func TestAnswersAreMadeSoOften(t *testing.T) {
	for _, path := range []string{"/metrics", "/readyz"} {
		synctest.Test(t, func(t *testing.T) {
			d := &counted{daemon: newDaemon()}
			handler, first := metrics.Handler(d), ""
			const seconds, rate = 10, 1000
			for range seconds * rate {
				answer := httptest.NewRecorder()
				handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
				if first == "" {
					first = answer.Body.String()
				}
				if !strings.HasPrefix(answer.Body.String(), first[:10]) || answer.Code != http.StatusOK {
					t.Fatalf("%s: %d %s", path, answer.Code, answer.Body)
				}
				time.Sleep(time.Second / rate)
			}
			if d.asked < 100 || d.asked > 200 {
				t.Errorf("%s: made %d times for %d requests in %d s", path, d.asked, seconds*rate, seconds)
			}
		})
	}
}

// Of what weftd does not know there is no series: a zero would be a statement.
func TestUnknownIsAbsent(t *testing.T) {
	for _, tt := range []struct {
		name    string
		unknown func(*metrics.Sample)
		absent  []string
	}{
		{"handshakes, with vxlan", func(s *metrics.Sample) { s.Handshakes = nil }, []string{"weft_handshakes_total", "weft_peer_unreachable_total"}},
		{"each of too many peers", func(s *metrics.Sample) { s.Peers.Each = nil }, []string{"weft_peer_state", "weft_peer_last_seen_timestamp_seconds",
			"weft_peer_packets_total", "weft_peer_bytes_total", "weft_peer_rtt_seconds", "weft_peer_path_mtu_bytes", "weft_peer_probe_loss_ratio"}},
		{"the lease file", func(s *metrics.Sample) { s.Leases = nil }, []string{"weft_leases", "weft_pool_addresses"}},
		{"the pool, before weftd forwards", func(s *metrics.Sample) { s.Leases.Pools = nil }, []string{"weft_pool_addresses"}},
		{"the guard table's counters", func(s *metrics.Sample) { s.Host.Drops = nil }, []string{"weft_guard_drops_total"}},
		{"the MTU", func(s *metrics.Sample) { s.MTU = 0 }, []string{"weft_tun_mtu_bytes"}},
		{"the control source", func(s *metrics.Sample) { s.Control = metrics.Control{} }, []string{"weft_control_last_contact_timestamp_seconds"}},
		{"lanes, before weftd forwards", func(s *metrics.Sample) { s.Lanes = nil }, []string{"weft_lane_packets_total", "weft_lane_bytes_total", "weft_lane_drops_total"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDaemon()
			tt.unknown(&d.sample)
			want := slices.DeleteFunc(ours(t, newDaemon()), func(line string) bool { return slices.Contains(tt.absent, nameOf(line)) })
			got := slices.DeleteFunc(ours(t, d), func(line string) bool { return nameOf(line) == "weft_control_reachable" })
			want = slices.DeleteFunc(want, func(line string) bool { return nameOf(line) == "weft_control_reachable" })
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// nameOf is the metric of a line of /metrics.
func nameOf(line string) string {
	return line[:strings.IndexAny(line, "{ ")]
}

func TestWhatIsNotSoIsZero(t *testing.T) {
	got := ours(t, &daemon{})
	for _, name := range []string{"weft_ready", "weft_healthy", "weft_state_current", "weft_control_reachable", "weft_guard_present", "weft_nodes_rejected", "weft_udp_gso"} {
		if !slices.Contains(got, name+" 0") {
			t.Errorf("no %s 0 in %v", name, got)
		}
	}
}

// TestNamesFollowPrometheus has Prometheus' own tool check names, types and help texts.
func TestNamesFollowPrometheus(t *testing.T) {
	check := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
	check.Stdin = get(t, newDaemon(), http.MethodGet, "/metrics").Body
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

func TestProbesSayOKOrWhyNot(t *testing.T) {
	broken := newDaemon()
	broken.unhealthy = errors.New("the route to 10.244.2.0/24 is taken")
	broken.unfit = errors.New("weftd is starting")
	for _, tt := range []struct {
		name         string
		daemon       *daemon
		method, path string
		code         int
		body         string
	}{
		{"healthy", newDaemon(), http.MethodGet, "/healthz", http.StatusOK, "ok\n"},
		{"ready", newDaemon(), http.MethodGet, "/readyz", http.StatusOK, "ok\nwarning: a (1)\nwarning: b (2)\n"},
		{"unhealthy", broken, http.MethodGet, "/healthz", http.StatusServiceUnavailable, "the route to 10.244.2.0/24 is taken\n"},
		{"not ready", broken, http.MethodGet, "/readyz", http.StatusServiceUnavailable, "weftd is starting\nwarning: a (1)\nwarning: b (2)\n"},
		{"unknown path", newDaemon(), http.MethodGet, "/debug/pprof/", http.StatusNotFound, "404 page not found\n"},
		{"no reading", newDaemon(), http.MethodPost, "/healthz", http.StatusMethodNotAllowed, "Method Not Allowed\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answer := get(t, tt.daemon, tt.method, tt.path)
			if answer.Code != tt.code || answer.Body.String() != tt.body {
				t.Errorf("got %d %q, want %d %q", answer.Code, answer.Body, tt.code, tt.body)
			}
		})
	}
}
