package status_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"weft/drop"
	"weft/internal/status"
	"weft/router"
)

func socketPath(t *testing.T) string { return filepath.Join(t.TempDir(), status.SocketName) }

// serve answers on a socket until the test ends.
func serve(t *testing.T, handler http.Handler) (path string) {
	t.Helper()
	path = socketPath(t)
	listener, err := status.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	server := http.Server{Handler: handler, ReadHeaderTimeout: time.Second}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return path
}

// leaveStale leaves a socket as a killed daemon does.
func leaveStale(t *testing.T, path string) {
	t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	listener.Close()
}

// All documents are found by their names: weft sysdump collects them that way.
func TestDocumentsAreListed(t *testing.T) {
	path := serve(t, status.Handler(status.Daemon{Report: func() status.Report { return status.Report{Node: "node1"} }}))
	names, err := status.Documents(t.Context(), path)
	if err != nil || !slices.Contains(names, "status") {
		t.Fatalf("%v, %v", names, err)
	}
	if document, err := status.Document(t.Context(), path, "status"); err != nil || !strings.Contains(string(document), `"node":"node1"`) {
		t.Errorf("%s, %v", document, err)
	}
	if _, err := status.Document(t.Context(), path, "other"); err == nil {
		t.Error("a document that there is not")
	}
	code, err := os.ReadFile("status.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(code), `"GET /v1/`); n != 2 { // of each document, and of the list
		t.Errorf("%d patterns with GET; have each document listed", n)
	}
}

func TestAReportArrivesAsItWasMade(t *testing.T) {
	want := status.Report{
		Version: "1.2.3", Node: "node1", Ready: true, NotReady: "why", Encapsulation: "vxlan",
		Listen:   netip.MustParseAddrPort("[::]:9338"),
		TUN:      status.TUN{Name: "weft0", Driver: "water", Lanes: 3, MTU: 1430},
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
		Peers: []status.Peer{{
			Name: "node2", Endpoint: netip.MustParseAddrPort("192.168.77.2:9338"),
			Prefixes: []netip.Prefix{netip.MustParsePrefix("fd00:244:2::/64")},
		}, {
			Name: "node3", Endpoint: netip.MustParseAddrPort("[fd00:77::3]:9338"),
			Prefixes: []netip.Prefix{netip.MustParsePrefix("10.244.3.0/24")},
			Traffic:  status.Traffic{SentPackets: 2, SentBytes: 3, ReceivedPackets: 4, ReceivedBytes: 5},
			Path:     &status.Path{MTU: 1240, Largest: 1440, Answered: time.Now().UTC(), Silent: true, ProbeRTT: 8, Loss: 0.25},
			Link: &status.Link{
				Key: "0a", State: "unreachable", KeysBegan: time.Now().UTC(), RTT: 1, Refused: 6, Error: "why", Failures: 7, Retry: time.Now().UTC(),
			},
			Rates: &status.Rates{SentBytes: 8},
		}},
		State: status.State{Source: "/etc/weft/nodes.yaml", Applied: time.Now().UTC(), Rejected: "line 1\nline 2"},
		Stats: router.Stats{Outbound: router.Traffic{Packets: 1 << 60, Bytes: 2}, Inbound: router.Traffic{Packets: 3, Bytes: 4}},
		Drops: map[string]uint64{drop.NoRoute.String(): 5},
	}
	got, err := status.Fetch(t.Context(), serve(t, status.Handler(status.Daemon{Report: func() status.Report { return want }})))
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{})); diff != "" || err != nil {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
}

// TestSocketIsRootsAlone: it replaces the one of a weftd that was killed, or still ends, and stays when
// that one closes its own.
func TestSocketIsRootsAlone(t *testing.T) {
	path := socketPath(t)
	leaveStale(t, path)
	var before net.Listener
	for _, what := range []string{"in the place of a stale one", "beside another one"} {
		listener, err := status.Listen(path)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode() != os.ModeSocket|0o600 {
			t.Errorf("%s: mode %v, %v; want a socket of mode 0600", what, info.Mode(), err)
		}
		defer listener.Close()
		if before != nil {
			before.Close()
		}
		before = listener
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		conn.Close()
	}
}

func TestASocketThatCannotBeOpenedIsAnError(t *testing.T) {
	dir := t.TempDir()
	full := filepath.Join(dir, "full", "of")
	if err := os.MkdirAll(full, 0o755); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "absent", "weftd.sock"): "open the status socket: ",
		filepath.Dir(full):                         "remove the old status socket: ",
	} {
		if _, err := status.Listen(path); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("Listen(%s): %v; want %s…", path, err, want)
		}
	}
}

func TestFetchSaysWhatIsTheMatter(t *testing.T) {
	stale := socketPath(t)
	leaveStale(t, stale)
	absent := socketPath(t)
	old := serve(t, http.NotFoundHandler())
	garbage := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"node":`)) }))
	rude := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	const gone = "; is it running (systemctl status weftd), and is its runDir another (--socket)?"
	for _, tt := range []struct{ name, path, want string }{
		{"no socket", absent, "no weftd answers at " + absent + gone},
		{"a stale socket", stale, "no weftd answers at " + stale + gone},
		{"another version", old, "the weftd at " + old + " answers 404 Not Found; is it of another version than weft?"},
		{"half an answer", garbage, "read weftd's answer: unexpected EOF"},
		{"no answer", rude, `ask weftd: Get "http://weftd/v1/status": EOF`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := status.Fetch(t.Context(), tt.path); err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestFetchDoesNotWaitForAWeftdThatHangs(t *testing.T) {
	hang := make(chan struct{})
	path := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	defer close(hang)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := status.Fetch(ctx, path)
	if want := "the weftd at " + path + " does not answer; see its log (journalctl -u weftd)"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestNothingElseCanBeAskedFor(t *testing.T) {
	handler := status.Handler(status.Daemon{
		Report:  func() status.Report { return status.Report{} },
		Rotate:  func(context.Context, []string) (status.Rotation, error) { return status.Rotation{}, nil },
		Confirm: func(context.Context) (status.Confirmation, error) { return status.Confirmation{}, nil },
	})
	for _, tt := range []struct {
		method, path, body string
		want               int
	}{
		{http.MethodGet, "/v1/status", "", http.StatusOK},
		{http.MethodPost, "/v1/status", "", http.StatusMethodNotAllowed},
		{http.MethodPost, "/v1/rotate-key", "{}", http.StatusOK},
		{http.MethodPost, "/v1/rotate-key", `{"peers": ["node2"]}`, http.StatusOK},
		{http.MethodPost, "/v1/rotate-key", `{"peer": ["node2"]}`, http.StatusBadRequest}, // and not all
		{http.MethodPost, "/v1/rotate-key", "", http.StatusBadRequest},
		{http.MethodPost, "/v1/rotate-key", `{"peers": ["` + strings.Repeat("n", 2<<20) + `"]}`, http.StatusBadRequest},
		{http.MethodGet, "/v1/rotate-key", "", http.StatusMethodNotAllowed},
		{http.MethodPost, "/v1/confirm", "", http.StatusOK},
		{http.MethodGet, "/v1/confirm", "", http.StatusMethodNotAllowed},
		{http.MethodGet, "/", "", http.StatusNotFound},
		{http.MethodGet, "/debug/pprof/", "", http.StatusNotFound},
	} {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), tt.method, tt.path, strings.NewReader(tt.body)))
		if answer.Code != tt.want {
			t.Errorf("%s %s %.30s: %d, want %d", tt.method, tt.path, tt.body, answer.Code, tt.want)
		}
	}
}

func TestPeersAreSelectedByTheirNames(t *testing.T) {
	r := status.Report{Node: "node1", Peers: []status.Peer{{Name: "node2"}, {Name: "node3"}, {Name: "rack-7"}}}
	for _, tt := range []struct{ names, want, err string }{
		{"", "node2 node3 rack-7", ""},
		{"node3", "node3", ""},
		{"rack-7 node2 node2", "node2 rack-7", ""},
		{"rack7", "", `no peer is named "rack7"; did you mean rack-7?`},
		{"node1", "", "node1 is this node itself, and not a peer"},
		{"node2 gateway nod3", "", `no peer is named "gateway"; remove it` + "\n" + `no peer is named "nod3"; did you mean node3?`},
	} {
		peers, err := r.Select(strings.Fields(tt.names))
		var got []string
		for _, p := range peers {
			got = append(got, p.Name)
		}
		message := ""
		if err != nil {
			message = err.Error()
		}
		if strings.Join(got, " ") != tt.want || message != tt.err {
			t.Errorf("Select(%s) = %v, %q; want %s, %q", tt.names, got, message, tt.want, tt.err)
		}
	}
}
