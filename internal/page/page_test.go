package page

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/events"
	"weft/internal/status"
	"weft/internal/warning"
)

// served is a weftd that reports always the same, and counts how often it is asked.
type served struct {
	report  status.Report
	journal events.Page
	asked   int
	wait    chan struct{} // if not nil, a report waits for it
}

func (s *served) daemon() Daemon {
	return Daemon{
		Report: func() status.Report {
			s.asked++
			if s.wait != nil {
				<-s.wait
			}
			return s.report
		},
		Events: func(time.Time, uint64) events.Page { return s.journal },
	}
}

func (s *served) handler() http.Handler {
	mux := http.NewServeMux()
	Register(mux, s.daemon())
	return mux
}

func get(t *testing.T, h http.Handler, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return w
}

// many is a report of a node with so many peers, all of them as large as they can be.
func many(peers int, name, text string) status.Report {
	r := status.Report{Node: "node1", Ready: true, Drops: map[string]uint64{}, RecentDrops: map[string]uint64{}}
	for i := range peers {
		p := status.Peer{
			Name: fmt.Sprintf("%s%d", name, i), Endpoint: netip.MustParseAddrPort("[2001:db8:1111:2222:3333:4444:5555:6666]:9338"),
			Rates: &status.Rates{SentBytes: uint64(i)},
			Path:  &status.Path{Answered: time.Now(), MTU: 1400, Largest: 1440},
			Link:  &status.Link{State: "unreachable", Error: text},
		}
		for j := range 10 {
			p.Prefixes = append(p.Prefixes, netip.MustParsePrefix(fmt.Sprintf("2001:db8:1111:2222:3333:4444:5555:%x/128", j)))
		}
		r.Peers = append(r.Peers, p)
		r.Warnings = append(r.Warnings, warning.Warning{Code: "path_mtu", Text: text})
	}
	r.Diagnose()
	return r
}

// TestWhatPeersChooseIsNoMarkup: names and texts may come from a hostile node.
func TestWhatPeersChooseIsNoMarkup(t *testing.T) {
	const hostile = `<script>alert(1)</script>"'><img src=x onerror=alert(1)>` + "\u202e\x1b[2J\x00"
	r := many(20, hostile, hostile+"; "+hostile)
	r.Node, r.State.Source, r.State.Rejected = hostile, hostile, hostile
	r.Diagnose()
	s := &served{report: r, journal: events.Page{Events: []events.Event{{Code: hostile, Subject: hostile, Count: 2}}}}
	page := get(t, s.handler(), "/").Body.String()
	if n := strings.Count(page, "&lt;script&gt;alert(1)"); n < 20 {
		t.Errorf("the names are on the page %d times", n)
	}
	if n := strings.Count(page, "<script"); n != 1 {
		t.Errorf("there are %d scripts", n)
	}
	for _, forbidden := range []string{"<img", "\u202e", "\x1b", "\x00"} {
		if strings.Contains(page, forbidden) {
			t.Errorf("the page has %q", forbidden)
		}
	}
}

// TestNothingComesFromElsewhere: what the page consists of is in the binary, and the browser is told so.
func TestNothingComesFromElsewhere(t *testing.T) {
	h := (&served{report: many(3, "node", "x")}).handler()
	for path, content := range map[string]string{"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript", "/icon.svg": "image/svg+xml"} {
		answer := get(t, h, path)
		if answer.Code != http.StatusOK || !strings.HasPrefix(answer.Header().Get("Content-Type"), content) {
			t.Errorf("%s: %d, %s", path, answer.Code, answer.Header().Get("Content-Type"))
		}
		policy := answer.Header().Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "trusted-types 'none'"} {
			if !strings.Contains(policy, part) {
				t.Errorf("%s: the policy %q has no %s", path, policy, part)
			}
		}
		if strings.Contains(policy, "unsafe") {
			t.Errorf("%s: the policy is %q", path, policy)
		}
		text := strings.ReplaceAll(answer.Body.String(), "http://www.w3.org/2000/svg", "") // a name, not an address
		for _, forbidden := range []string{"http:", "https:", "style=", "onload=", "onclick=", "innerHTML"} {
			if strings.Contains(text, forbidden) {
				t.Errorf("%s has %s", path, forbidden)
			}
		}
	}
	if answer := get(t, h, "/page.html"); answer.Code != http.StatusNotFound {
		t.Errorf("the template is served: %d", answer.Code)
	}
}

func TestThePageIsBounded(t *testing.T) {
	long := strings.Repeat(`<`, 10000) // each becomes four bytes
	for _, tt := range []struct {
		name   string
		report status.Report
		most   int
	}{
		{"5,000 ordinary peers", many(5000, "node", "node does not answer; look at it"), 256 << 10},
		{"5,000 hostile ones", many(5000, strings.Repeat("n", 250), long), 512 << 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &served{report: tt.report}
			for i := range 5000 {
				s.journal.Events = append(s.journal.Events, events.Event{Code: long, Subject: long, Sequence: uint64(i)})
			}
			page := get(t, s.handler(), "/").Body.String()
			if len(page) > tt.most {
				t.Errorf("%d bytes, want at most %d", len(page), tt.most)
			}
			for _, part := range []string{"and 4,900 more: 4,900 unreachable", "4,989 more", "4,950 earlier events"} {
				if !strings.Contains(page, part) {
					t.Errorf("no %q", part)
				}
			}
		})
	}
}

// However many ask, weftd makes a page once a second.
func TestAPageIsMadeOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &served{}
		h := s.handler()
		for range 100 {
			get(t, h, "/")
		}
		if s.asked != 1 {
			t.Errorf("100 requests at once: made %d times", s.asked)
		}
		time.Sleep(fresh)
		get(t, h, "/")
		if s.asked != 2 {
			t.Errorf("a second later: made %d times", s.asked)
		}
	})
}

// However many wait for a page that takes long, sixteen get it, and the others are refused at once.
func TestRequestsAreBounded(t *testing.T) {
	s := &served{wait: make(chan struct{})}
	server := &server{Daemon: s.daemon(), waiting: make(chan struct{}, maxWaiting)}
	codes := make(chan int, maxWaiting)
	for range maxWaiting {
		go func() { codes <- get(t, server, "/").Code }()
	}
	for len(server.waiting) < maxWaiting {
		runtime.Gosched()
	}
	if code := get(t, server, "/").Code; code != http.StatusServiceUnavailable {
		t.Errorf("one more: %d", code)
	}
	close(s.wait)
	for range maxWaiting {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("one of the first: %d", code)
		}
	}
}

// TestForeignNamesOfThisHostAreRefused: by DNS rebinding, a web site reads what listens on loopback.
func TestForeignNamesOfThisHostAreRefused(t *testing.T) {
	h := RefuseForeignNames((&served{}).handler())
	loopback, outside := net.IPv4(127, 0, 0, 1), net.IPv4(192, 168, 77, 1)
	for _, tt := range []struct {
		local net.IP
		host  string
		code  int
	}{
		{loopback, "127.0.0.1:9339", http.StatusOK},
		{loopback, "localhost:9339", http.StatusOK},
		{loopback, "localhost", http.StatusOK},
		{loopback, "[::1]:9339", http.StatusOK},
		{loopback, "[::1]", http.StatusOK},
		{loopback, "attacker.example:9339", http.StatusMisdirectedRequest},
		{loopback, "localhost.attacker.example", http.StatusMisdirectedRequest},
		{loopback, "", http.StatusMisdirectedRequest},
		{outside, "node1.example:9339", http.StatusOK}, // who listens there, is reached by name
	} {
		r := httptest.NewRequestWithContext(context.WithValue(t.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: tt.local, Port: 9339}), http.MethodGet, "/", nil)
		r.Host = tt.host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tt.code {
			t.Errorf("%q at %s: %d, want %d", tt.host, tt.local, w.Code, tt.code)
		}
	}
}

func TestThePageOnlyReads(t *testing.T) {
	w := httptest.NewRecorder()
	(&served{}).handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}
