package metrics_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

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
	stats            router.Stats
	links            *metrics.Links
	rejectedTotal    int
	rejected         bool
	unreadable       error // of the lease file
	unhealthy, unfit error
}

func newDaemon() *daemon {
	d := &daemon{rejectedTotal: 9}
	d.links = &metrics.Links{Peers: map[string]int{"no keys": 21, "up": 22, "unreachable": 0}, Agreed: 24, Failed: 25, Refused: 27, TurnedAway: 28, Unreachable: 26}
	d.stats.Outbound = router.Traffic{Packets: 101, Bytes: 102, SuperPackets: 105}
	d.stats.Inbound = router.Traffic{Packets: 103, Bytes: 104, SuperPackets: 106}
	for _, reason := range drop.All() {
		d.stats.Drops[reason] = 1000 + uint64(reason)
	}
	return d
}

func (d *daemon) Stats() router.Stats     { return d.stats }
func (d *daemon) Peers() int              { return 7 }
func (d *daemon) Prefixes() int           { return 8 }
func (d *daemon) Rejections() (int, bool) { return d.rejectedTotal, d.rejected }
func (d *daemon) RejectedNodes() bool     { return true }
func (d *daemon) UDP() (bool, uint64)     { return true, 107 }
func (d *daemon) Joins() (bool, bool)     { return true, false }
func (d *daemon) KeyChanges() int         { return 36 }
func (d *daemon) Warnings() []warning.Warning {
	return []warning.Warning{{Code: "a"}, {Code: "b", Text: "1"}, {Code: "b", Text: "2"}}
}
func (d *daemon) Healthy() error { return d.unhealthy }
func (d *daemon) GuardDrops() (map[string]uint64, error) {
	return map[string]uint64{"bare_to_pod": 11, "spoofed_by_pod": 12}, nil
}
func (d *daemon) Leases() (ipam.Usage, error) {
	return ipam.Usage{Leases: 31, CoolingDown: 32, Pools: []ipam.PoolUsage{
		{Family: family.IPv4, Size: 250, Leased: 41, CoolingDown: 42}, {Family: family.IPv6, Size: 1 << 63, Leased: 43, CoolingDown: 44}}}, d.unreadable
}
func (d *daemon) Reconciled() (map[string]uint64, int) {
	return map[string]uint64{"freed": 33, "adopted": 34, "rebuilt": 0}, 35
}
func (d *daemon) Links() *metrics.Links { return d.links }
func (d *daemon) Ready() error          { return d.unfit }

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
		`weft_packets_total{direction="outbound"} 101`, `weft_bytes_total{direction="outbound"} 102`,
		`weft_packets_total{direction="inbound"} 103`, `weft_bytes_total{direction="inbound"} 104`,
		`weft_superpackets_total{direction="outbound"} 105`, `weft_superpackets_total{direction="inbound"} 106`,
		"weft_udp_gso 1", `weft_tun_joins{protocol="tcp"} 1`, `weft_tun_joins{protocol="udp"} 0`, "weft_udp_gro_datagrams_total 107",
		`weft_guard_drops_total{counter="bare_to_pod"} 11`, `weft_guard_drops_total{counter="spoofed_by_pod"} 12`,
		`weft_sealed_peers{state="no_keys"} 21`, `weft_sealed_peers{state="up"} 22`, `weft_sealed_peers{state="unreachable"} 0`,
		`weft_handshakes_total{result="agreed"} 24`, `weft_handshakes_total{result="failed"} 25`,
		`weft_handshakes_total{result="refused"} 27`, `weft_handshakes_total{result="turned_away"} 28`,
		"weft_peer_unreachable_total 26",
		"weft_leases 31", `weft_pool_addresses{family="ipv4",state="leased"} 41`, `weft_pool_addresses{family="ipv4",state="cooling_down"} 42`, `weft_pool_addresses{family="ipv4",state="free"} 167`,
		`weft_pool_addresses{family="ipv6",state="leased"} 43`, `weft_pool_addresses{family="ipv6",state="cooling_down"} 44`, `weft_pool_addresses{family="ipv6",state="free"} 9.223372036854776e+18`,
		"weft_leases_unreconciled 35", "weft_nodes_rejected 1", "weft_key_changes_total 36",
		`weft_warnings{code="a"} 1`, `weft_warnings{code="b"} 2`,
		`weft_reconciled_total{action="freed"} 33`, `weft_reconciled_total{action="adopted"} 34`, `weft_reconciled_total{action="rebuilt"} 0`,
		"weft_peers 7", "weft_fib_prefixes 8", "weft_state_rejected_total 9", "weft_state_current 1", "weft_ready 1",
		fmt.Sprintf("weft_build_info{goversion=%q,version=%q} 1", runtime.Version(), version.Version),
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

// stuck is a weftd whose guard table can't be read for a while.
type stuck struct {
	*daemon
	asked, answer chan struct{}
}

func (d stuck) GuardDrops() (map[string]uint64, error) {
	d.asked <- struct{}{}
	<-d.answer
	return nil, nil
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

func TestWhatIsNotSoIsZero(t *testing.T) {
	d := newDaemon()
	d.rejected, d.unfit = true, errors.New("weftd is starting")
	got := ours(t, d)
	for _, want := range []string{"weft_state_current 0", "weft_ready 0"} {
		if !slices.Contains(got, want) {
			t.Errorf("no %s in %v", want, got)
		}
	}
}

func TestWithoutKeysNothingIsSaidOfThem(t *testing.T) {
	d := newDaemon()
	d.links = nil
	for _, line := range ours(t, d) {
		for _, name := range []string{"weft_sealed_peers", "weft_handshakes_total", "weft_peer_unreachable_total"} {
			if strings.HasPrefix(line, name) {
				t.Errorf("%s is there", line)
			}
		}
	}
}

func TestLeasesThatCannotBeReadAreNotZero(t *testing.T) {
	d := newDaemon()
	d.unreadable = errors.New("the lease file is damaged")
	got := ours(t, d)
	for _, line := range got {
		if strings.HasPrefix(line, "weft_leases ") || strings.HasPrefix(line, "weft_pool_addresses") {
			t.Errorf("%s is there", line)
		}
	}
	if !slices.Contains(got, "weft_leases_unreconciled 35") {
		t.Errorf("weft_leases_unreconciled is missing in %v", got)
	}
}

func TestNamesAndHelpFollowPrometheusRules(t *testing.T) {
	problems, err := promlint.New(get(t, newDaemon(), http.MethodGet, "/metrics").Body).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
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
