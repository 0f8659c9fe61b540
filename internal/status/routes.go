package status

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"weft/internal/hostnet"
)

// RouteEntry is a prefix of the forwarding table, and what the kernel has for it. Or it is a
// route of another program in the cluster CIDRs, for which the table has no prefix of its own.
type RouteEntry struct {
	Prefix netip.Prefix `json:"prefix"`

	// Node is the owner of the prefix by weftd's table; empty if there is none. Self says that it
	// is this node.
	Node string `json:"node,omitempty"`
	Self bool   `json:"self,omitempty"`

	// Kernel are the kernel's routes to this prefix, the one that counts first.
	Kernel []hostnet.KernelRoute `json:"kernel"`

	// Problem is why the kernel does not do what the table wants, and the remedy; empty if it does.
	Problem string `json:"problem,omitempty"`
}

// Routes returns the entries that overlap a prefix, or all if it is not valid: those with problems
// first, then by prefix.
type Routes func(overlapping netip.Prefix) ([]RouteEntry, error)

func (f Routes) serve(w http.ResponseWriter, r *http.Request) {
	var prefix netip.Prefix
	if text := r.URL.Query().Get("prefix"); text != "" {
		var err error
		if prefix, err = netip.ParsePrefix(text); err != nil {
			http.Error(w, fmt.Sprintf("prefix=%q is not an IP prefix", text), http.StatusBadRequest)
			return
		}
	}
	entries, err := f(prefix)
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	reply(w, entries)
}

// routesLimit is how long weftd may take to compare thousands of routes.
const routesLimit = 30 * time.Second

// FetchRoutes asks the daemon behind the socket at path for the routes that overlap a prefix, or for
// all if it is not valid.
func FetchRoutes(ctx context.Context, path string, overlapping netip.Prefix) ([]RouteEntry, error) {
	query := ""
	if overlapping.IsValid() {
		query = "?" + url.Values{"prefix": {overlapping.String()}}.Encode()
	}
	return ask[[]RouteEntry](ctx, routesLimit, path, http.MethodGet, "/v1/routes"+query, nil)
}
