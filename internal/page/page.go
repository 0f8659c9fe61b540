// Package page serves the status page: what one node's weftd knows of itself and its peers, for
// people. weftd writes all of it as HTML, so the page is complete without its script, and one
// place escapes what peers and pods have chosen. The script fetches the page again and again, and
// changes what differs.
//
// Any local user may read the page, and any host where metrics.listen is one that it reaches. So the
// page never shows what a secret is or where a readable one lies, and has nothing to click that would
// change anything.
package page

import (
	"bytes"
	"embed"
	"html/template"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"weft/internal/events"
	"weft/internal/status"
)

//go:embed assets
var files embed.FS

var markup = template.Must(template.ParseFS(files, "assets/page.html"))

const (
	// fresh is how long weftd serves the same page: however many ask, it makes one a second.
	fresh = time.Second

	// maxWaiting is how many requests may wait for a page at the same time; more are answered 503.
	maxWaiting = 16
)

// policy allows what the page consists of, and no more: nothing inline, nothing from elsewhere, no
// frame around it, and no HTML that the script would have to parse from text.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Daemon is what the page shows.
type Daemon struct {
	Report func() status.Report
	Events func(since time.Time, after uint64) events.Page
}

// server keeps the page that it made last.
type server struct {
	Daemon
	waiting chan struct{}

	mu   sync.Mutex // guards what follows, and is held while a page is made
	made time.Time
	page []byte
}

// Register adds the page to mux, at / and beside it.
func Register(mux *http.ServeMux, d Daemon) {
	s := &server{Daemon: d, waiting: make(chan struct{}, maxWaiting)}
	mux.Handle("GET /{$}", guarded(s))
	assets, err := fs.Sub(files, "assets")
	if err != nil {
		panic(err) // the folder is in the binary
	}
	for _, name := range []string{"page.css", "page.js", "icon.svg"} {
		mux.Handle("GET /"+name, guarded(http.FileServerFS(assets)))
	}
}

// RefuseForeignNames refuses requests by which a page from elsewhere would read what is served on
// loopback, the metrics included.
func RefuseForeignNames(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rebound(r) {
			http.Error(w, "this address is not weftd's; use localhost or an IP address", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// guarded adds the headers that confine the page in the browser.
func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// rebound says whether a request to a loopback address names a host that may be anyone's: a web
// site can have its own name resolve to 127.0.0.1 (DNS rebinding), and its script then reads the
// answers.
func rebound(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok || !local.IP.IsLoopback() {
		return false
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if n := len(host); n > 1 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	_, err := netip.ParseAddr(host)
	return err != nil && host != "localhost"
}

func (s *server) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	select {
	case s.waiting <- struct{}{}:
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many requests at the same time; try again", http.StatusServiceUnavailable)
		return
	}
	page, err := s.current()
	<-s.waiting
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(page) // an error means that the client has gone
}

// current returns the page, made anew if it is not fresh.
func (s *server) current() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.page != nil && now.Sub(s.made) < fresh {
		return s.page, nil
	}
	var b bytes.Buffer
	if err := markup.Execute(&b, newView(s.Report(), s.Events(now.Add(-eventsSince), 0), now)); err != nil {
		return nil, err
	}
	s.page, s.made = b.Bytes(), now
	return s.page, nil
}
