package browser

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/internal/events"
	"weft/internal/page"
	"weft/internal/status"
)

// TestManyPeers shows a node with thousands of peers, some of which have hostile names and texts.
func TestManyPeers(t *testing.T) {
	const hostile = `<img src=x onerror=console.error(1)><script>console.error(2)</script>`
	r := status.Report{Node: strings.Repeat("n", 253), Ready: true, Encapsulation: "sealed"}
	for i := range 5000 {
		p := status.Peer{
			Name: fmt.Sprintf("ip-10-0-%d-%d.eu-central-1.compute.internal", i/256, i%256), Endpoint: netip.MustParseAddrPort("[2001:db8:1111:2222:3333:4444:5555:6666]:9338"),
			Prefixes: []netip.Prefix{netip.MustParsePrefix("2001:db8:1111:2222:3333:4444:5555:6666/128")},
			Rates:    &status.Rates{SentBytes: 1 << (i % 30), ReceivedBytes: 1 << (i % 20)},
			Path:     &status.Path{Answered: time.Now(), MTU: 1440, Largest: 1440},
			Link:     &status.Link{State: "up"},
		}
		if i < 20 {
			p.Name, p.State, p.Error = hostile+strings.Repeat("x", 150+i), "unreachable", strings.Repeat(hostile, 5)
		}
		r.Peers = append(r.Peers, p)
	}
	r.Diagnose()
	mux := http.NewServeMux()
	page.Register(mux, page.Daemon{
		Report: func() status.Report { return r },
		Events: func(time.Time, uint64) events.Page {
			return events.Page{Events: []events.Event{{Code: hostile, Subject: strings.Repeat(hostile, 3), Level: "WARN", Time: time.Now()}}}
		},
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)

	p := open(t, server.URL+"/")
	p.expect("header", "Degraded", "20 of 5000 peers unreachable", "it updates itself")
	p.expect(".mesh", "<img src=x", "4,989 more", "unreachable", "up")
	p.expect("#main", "and 4,900 more: 4,900 up")
	p.expectSound()
}
