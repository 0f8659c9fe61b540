// Package metrics shows a running weftd to Prometheus and to health probes. It reads
// counters; it never stands in a packet's way.
//
// families.go has a row for each metric; docs/METRICS.md is made from it.
package metrics

import (
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"weft/internal/warning"
)

// Daemon is what is shown.
type Daemon interface {
	// Sample returns the counters and states as they are now.
	Sample() Sample

	// Warnings are what an operator needs to know while pods go on.
	Warnings() []warning.Warning

	// Healthy and Ready return nil, or why it is not so.
	Healthy() error
	Ready() error
}

// maxScrapes is how many scrapes may be under way; more are answered 503. Any local user may
// scrape.
const maxScrapes = 4

// Handler serves /metrics, /healthz and /readyz.
func Handler(d Daemon) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newCollector(d), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	type gathered struct {
		families []*dto.MetricFamily
		err      error
	}
	gather := newBounded(func() (g gathered) {
		g.families, g.err = registry.Gather()
		return g
	})
	scraped := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		g := gather.get()
		return g.families, g.err
	})
	warnings := newBounded(func() map[string]int { return warning.Counts(d.Warnings()) })
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(scraped, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, d.Healthy()) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, d.Ready())
		// For people. Warnings never decide whether pods come to this node.
		counts := warnings.get()
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
