// Package metrics shows a running weftd to Prometheus and to health probes. It reads
// counters; it never stands in a packet's way.
package metrics

import (
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"weft/drop"
	"weft/internal/version"
	"weft/internal/warning"
	"weft/ipam"
	"weft/router"
)

// Daemon is what is shown.
type Daemon interface {
	Stats() router.Stats

	// UDP returns whether the kernel takes runs of datagrams in one message (UDP GSO),
	// and how many datagrams it has joined before they were read (UDP GRO).
	UDP() (gso bool, gro uint64)

	// Joins returns whether the TUN device takes packets that were joined, of TCP and of UDP.
	Joins() (tcp, udp bool)
	Peers() int
	Prefixes() int

	// Rejections returns how many States were refused since the start, and whether
	// the newest one was.
	Rejections() (total int, newest bool)

	// RejectedNodes reports whether nodes have registered themselves so that they can't be peers.
	RejectedNodes() bool

	// KeyChanges returns how often the control source has replaced a known node's key.
	KeyChanges() int

	// Warnings are what an operator needs to know while pods go on.
	Warnings() []warning.Warning

	// GuardDrops returns the packets that the guard table has dropped, by its counters.
	GuardDrops() (map[string]uint64, error)

	// Leases returns how this node's pod addresses are used.
	Leases() (ipam.Usage, error)

	// Reconciled returns how often leases were put in order, by action, and how much of
	// them only an operator can put in order.
	Reconciled() (actions map[string]uint64, unreconciled int)

	// Links returns how this node and its peers stand, or nil where packets are not sealed.
	Links() *Links

	// Healthy and Ready return nil, or why it is not so.
	Healthy() error
	Ready() error
}

// Links is how this node and its peers stand, and what has happened until now.
type Links struct {
	Peers       map[string]int // by state; every state is there
	Agreed      uint64         // handshakes that made keys
	Failed      uint64         // handshakes of this node that came to nothing
	Refused     uint64         // handshakes of this node that a peer refused for now
	TurnedAway  uint64         // handshakes of peers that this node refused for now
	Unreachable uint64         // times that a peer stopped answering
}

var (
	packets = prometheus.NewDesc("weft_packets_total",
		"Pods' packets forwarded, by direction: outbound to peers, inbound to this node.", []string{"direction"}, nil)
	bytes = prometheus.NewDesc("weft_bytes_total",
		"Bytes of these packets, without encapsulation.", []string{"direction"}, nil)
	superPackets = prometheus.NewDesc("weft_superpackets_total",
		"Packets that passed the TUN device unsegmented, by direction; each counts as several in weft_packets_total.", []string{"direction"}, nil)
	udpGSO = prometheus.NewDesc("weft_udp_gso",
		"1 if weftd sends runs of datagrams in one message, 0 if the kernel or the card refused that, or udp.gso or a known fault of this kernel forbids it.", nil, nil)
	tunJoins = prometheus.NewDesc("weft_tun_joins",
		"1 if weftd joins received packets before it writes them to the TUN device, by protocol; 0 if the driver or the kernel takes none.", []string{"protocol"}, nil)
	udpGRO = prometheus.NewDesc("weft_udp_gro_datagrams_total",
		"Datagrams that the kernel joined with others before weftd read them.", nil, nil)
	drops = prometheus.NewDesc("weft_drops_total",
		"Packets and datagrams that weftd dropped, by reason (docs/OPERATIONS.md).", []string{"reason"}, nil)
	guardDrops = prometheus.NewDesc("weft_guard_drops_total",
		"Packets that the guard table dropped, by counter (docs/OPERATIONS.md).", []string{"counter"}, nil)
	peers = prometheus.NewDesc("weft_peers",
		"Other nodes that this one forwards to.", nil, nil)
	prefixes = prometheus.NewDesc("weft_fib_prefixes",
		"Prefixes in the forwarding table, this node's own included.", nil, nil)
	sealedPeers = prometheus.NewDesc("weft_sealed_peers",
		"Peers by the state of the link to them (docs/OPERATIONS.md).", []string{"state"}, nil)
	handshakes = prometheus.NewDesc("weft_handshakes_total",
		"Handshakes by result: agreed on keys, begun by either node; begun by this node, and failed or refused by a peer for now; begun by a peer, and turned away by this node for now.", []string{"result"}, nil)
	unreachable = prometheus.NewDesc("weft_peer_unreachable_total",
		"Times that a peer stopped answering.", nil, nil)
	leases = prometheus.NewDesc("weft_leases",
		"Leases of this node's pods.", nil, nil)
	pool = prometheus.NewDesc("weft_pool_addresses",
		"Addresses that pods of this node can get, by family and state: leased, cooling_down (released recently, the last ones to be leased again) or free.", []string{"family", "state"}, nil)
	reconciled = prometheus.NewDesc("weft_reconciled_total",
		"What weftd did to reconcile leases (docs/OPERATIONS.md).", []string{"action"}, nil)
	unreconciled = prometheus.NewDesc("weft_leases_unreconciled",
		"Leases and veths of pods that weftd could not reconcile, and an operator must.", nil, nil)
	rejected = prometheus.NewDesc("weft_state_rejected_total",
		"Times that the newest State of the control source could not be applied as a whole.", nil, nil)
	current = prometheus.NewDesc("weft_state_current",
		"1 if the newest State of the control source is applied as a whole, 0 if not, or if the source is unreachable.", nil, nil)
	rejectedNodes = prometheus.NewDesc("weft_nodes_rejected",
		"1 if nodes that registered themselves were rejected as peers (weft status says why).", nil, nil)
	keyChanges = prometheus.NewDesc("weft_key_changes_total",
		"Times that the control source replaced a known node's key.", nil, nil)
	warnings = prometheus.NewDesc("weft_warnings",
		"Warnings for operators by code (weft status shows their texts); a code without a warning is absent.", []string{"code"}, nil)
	ready = prometheus.NewDesc("weft_ready",
		"1 if /readyz reports ready.", nil, nil)
	buildInfo = prometheus.NewDesc("weft_build_info",
		"Always 1; the labels name the build.", []string{"version", "goversion"}, nil)
)

type collector struct{ Daemon }

func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{packets, bytes, superPackets, udpGSO, tunJoins, udpGRO, drops, guardDrops, peers, prefixes,
		sealedPeers, handshakes, unreachable, leases, pool, reconciled, unreconciled, rejected, current, rejectedNodes, keyChanges, warnings, ready, buildInfo} {
		out <- d
	}
}

func (c collector) Collect(out chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, value uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	stats := c.Stats()
	counter(packets, stats.Outbound.Packets, "outbound")
	counter(packets, stats.Inbound.Packets, "inbound")
	counter(bytes, stats.Outbound.Bytes, "outbound")
	counter(bytes, stats.Inbound.Bytes, "inbound")
	counter(superPackets, stats.Outbound.SuperPackets, "outbound")
	counter(superPackets, stats.Inbound.SuperPackets, "inbound")
	gso, gro := c.UDP()
	gauge(udpGSO, number(gso))
	tcpJoins, udpJoins := c.Joins()
	gauge(tunJoins, number(tcpJoins), "tcp")
	gauge(tunJoins, number(udpJoins), "udp")
	counter(udpGRO, gro)
	for _, reason := range drop.All() {
		counter(drops, stats.Drops[reason], reason.String())
	}
	if guard, err := c.GuardDrops(); err == nil { // otherwise /healthz reports why
		for name, n := range guard {
			counter(guardDrops, n, name)
		}
	}
	gauge(peers, float64(c.Peers()))
	gauge(prefixes, float64(c.Prefixes()))
	if links := c.Links(); links != nil {
		for state, n := range links.Peers {
			gauge(sealedPeers, float64(n), strings.ReplaceAll(state, " ", "_"))
		}
		counter(handshakes, links.Agreed, "agreed")
		counter(handshakes, links.Failed, "failed")
		counter(handshakes, links.Refused, "refused")
		counter(handshakes, links.TurnedAway, "turned_away")
		counter(unreachable, links.Unreachable)
	}
	if usage, err := c.Leases(); err == nil { // otherwise weft_leases_unreconciled counts it
		gauge(leases, float64(usage.Leases))
		for _, p := range usage.Pools {
			name := "ipv" + p.Family.Digit()
			gauge(pool, float64(p.Leased), name, "leased")
			gauge(pool, float64(p.CoolingDown), name, "cooling_down")
			gauge(pool, float64(p.Free()), name, "free")
		}
	}
	actions, open := c.Reconciled()
	for action, n := range actions {
		counter(reconciled, n, action)
	}
	gauge(unreconciled, float64(open))
	total, newest := c.Rejections()
	counter(rejected, uint64(total))
	gauge(current, number(!newest))
	gauge(rejectedNodes, number(c.RejectedNodes()))
	counter(keyChanges, uint64(c.KeyChanges()))
	for code, n := range warning.Counts(c.Warnings()) {
		gauge(warnings, float64(n), code)
	}
	gauge(ready, number(c.Ready() == nil))
	gauge(buildInfo, 1, version.Version, runtime.Version())
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// maxScrapes is how many scrapes may be under way; more are answered 503. Any local user may
// scrape.
const maxScrapes = 4

// Handler serves /metrics, /healthz and /readyz.
func Handler(d Daemon) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{d}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, d.Healthy()) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, d.Ready())
		// For people. Warnings never decide whether pods come to this node.
		counts := warning.Counts(d.Warnings())
		for _, code := range slices.Sorted(maps.Keys(counts)) {
			fmt.Fprintf(w, "warning: %s (%d)\n", code, counts[code])
		}
	})
	return mux
}

func answer(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}
