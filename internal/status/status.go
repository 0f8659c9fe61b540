// Package status is how weft asks weftd what it is doing, and for new data keys: JSON
// documents over HTTP on a unix socket in the run directory, which only root may open.
package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/peercred"
	"weft/internal/strict"
	"weft/internal/warning"
	"weft/ipam"
	"weft/router"
)

// SocketName is the socket's name in the run directory.
const SocketName = "weftd.sock"

// LingerName is the name, in the run directory, of the socket of a weftd that was ready, has handed its
// data path over, and waits to be ended. It answers nothing: see Server.
const LingerName = "lingering.sock"

// Report is what weftd says of itself. Its times are what the clock would have shown then
// if it had been set as it is now.
type Report struct {
	Version  string `json:"version"`
	Node     string `json:"node"`
	Ready    bool   `json:"ready"`
	NotReady string `json:"notReady,omitempty"` // why, if it is not

	// Summary is what to know first: "ready", "ready, 2 warnings", "DEGRADED: …" or "NOT READY: …".
	Summary string `json:"summary"`

	// Problems are what is wrong, the worst first, each with its remedy. Diagnose fills in
	// these and the summary.
	Problems []Problem `json:"problems"`

	// Warnings are what an operator needs to know while pods go on.
	Warnings []warning.Warning `json:"warnings"`

	Encapsulation string         `json:"encapsulation"`
	Listen        netip.AddrPort `json:"listen"`
	TUN           TUN            `json:"tun"`
	PodCIDRs      []netip.Prefix `json:"podCIDRs"`
	Peers         []Peer         `json:"peers"`
	CNI           CNI            `json:"cni"`
	EchoPort      uint16         `json:"echoPort"` // that answers connectivity tests; 0: none
	State         State          `json:"state"`
	Leases        Leases         `json:"leases"`

	Host     Part `json:"host"`     // routes, rules, addresses and sysctls
	Guard    Part `json:"guard"`    // the guard table
	Conflist Part `json:"conflist"` // by which container runtimes add pods

	router.Stats

	// Lanes are the lanes' parts of these counters; packets that waited for keys are no lane's.
	Lanes []router.Stats `json:"lanes"`

	// Drops counts packets by reason; a reason that never occurred is absent.
	Drops map[string]uint64 `json:"drops"`

	// RecentDrops are those of the last minute. GuardDrops and RecentGuardDrops are the packets
	// that the guard table dropped, by its counters.
	RecentDrops      map[string]uint64 `json:"recentDrops"`
	GuardDrops       map[string]uint64 `json:"guardDrops"`
	RecentGuardDrops map[string]uint64 `json:"recentGuardDrops"`
}

// Part is whether a part of weft is as it must be.
type Part struct {
	Error string `json:"error,omitempty"` // why not; empty if it is
}

// CNI is how container runtimes call weft-cni.
type CNI struct {
	Conflist string `json:"conflist"` // weftd's, a file
	BinDir   string `json:"binDir"`   // where the plugins are
}

// TUN describes the device.
type TUN struct {
	Name   string `json:"name"`
	Driver string `json:"driver"`
	Lanes  int    `json:"lanes"`
	MTU    int    `json:"mtu"` // bytes
}

// Peer is another node, as this one forwards to it.
type Peer struct {
	Name     string         `json:"name"`
	Endpoint netip.AddrPort `json:"endpoint"`
	Prefixes []netip.Prefix `json:"prefixes"`

	Traffic
	Rates *Rates `json:"rates,omitempty"` // of the traffic in the last 10 to 20 s; nil at first
	Path  *Path  `json:"path,omitempty"`  // nil for a kernel VXLAN device, which answers no probes
	*Link        // nil with vxlan
}

// Traffic is what passed with a peer, of pods' packets, without encapsulation.
type Traffic struct {
	SentPackets     uint64 `json:"sentPackets"`
	SentBytes       uint64 `json:"sentBytes"`
	ReceivedPackets uint64 `json:"receivedPackets"`
	ReceivedBytes   uint64 `json:"receivedBytes"`
}

// Path is what probes have shown of the way to a peer.
type Path struct {
	// MTU is the size of the largest packets of pods that arrive, as far as is known, and Largest
	// that of the largest that pods send, both in bytes.
	MTU     int `json:"mtu"`
	Largest int `json:"largestMTU"`

	// Answered is when the peer last answered a probe, if it ever did. Silent says that it does
	// not, though packets leave for it.
	Answered time.Time `json:"answered,omitzero"`
	Silent   bool      `json:"silent,omitempty"`

	// RunsLost is Link's, where packets are not sealed.
	RunsLost bool `json:"runsLost,omitempty"`

	// ProbeRTT is smoothed; 0 if it is not known. Loss is the part of the last 64 probes that got
	// no answer, from 0 to 1.
	ProbeRTT int64   `json:"probeRTTMicroseconds,omitempty"`
	Loss     float64 `json:"loss"`
}

// Rates are Traffic per second.
type Rates Traffic

// Link is how this node and a peer stand, where packets are sealed.
type Link struct {
	Key       string    `json:"key"`                // fingerprint of the peer's
	State     string    `json:"state"`              // no keys, agreeing, up, idle or unreachable
	KeysBegan time.Time `json:"keysBegan,omitzero"` // of the present data keys, if there are any

	// KeysOverdue says that the data keys are older than they ought to be: handshakes fail.
	KeysOverdue bool `json:"keysOverdue,omitempty"`

	// Heard is when the peer last showed that it lives, if it ever did.
	Heard time.Time `json:"heard,omitzero"`

	// RTT is known while the peer shows signs of life.
	RTT int64 `json:"rttMicroseconds,omitempty"`

	// Refused are datagrams that were replayed, or sealed with another key.
	Refused uint64 `json:"refusedDatagrams"`

	// RunsLost says that datagrams sent in one message (UDP GSO) do not arrive at the peer,
	// so that weftd sends each one alone.
	RunsLost bool `json:"runsLost,omitempty"`

	// Of a peer that is not up, or whose keys are overdue, after an attempt to agree on keys
	// has failed: why, how many have failed in a row, and when the next one is due at the
	// earliest.
	Error    string    `json:"error,omitempty"`
	Failures int       `json:"failedAttempts,omitempty"`
	Retry    time.Time `json:"nextAttempt,omitzero"`
}

// LosesRuns reports whether weftd sends each datagram to the peer alone, as those sent in one message (UDP
// GSO) don't arrive.
func (p Peer) LosesRuns() bool {
	return p.Link != nil && p.RunsLost || p.Path != nil && p.Path.RunsLost
}

// Select returns the named peers, or all if no names are given, in the report's order.
func (r Report) Select(names []string) ([]Peer, error) {
	if len(names) == 0 {
		return r.Peers, nil
	}
	known := make([]string, len(r.Peers))
	for i, p := range r.Peers {
		known[i] = p.Name
	}
	var errs []error
	for _, name := range names {
		switch {
		case slices.Contains(known, name):
		case name == r.Node:
			errs = append(errs, fmt.Errorf("%s is this node itself, and not a peer", name))
		default:
			errs = append(errs, fmt.Errorf("no peer is named %s; %s", strict.Quote(name), strict.DidYouMean(name, known)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	unnamed := func(p Peer) bool { return !slices.Contains(names, p.Name) }
	return slices.DeleteFunc(slices.Clone(r.Peers), unnamed), nil
}

// State says where the applied State comes from.
type State struct {
	Source  string    `json:"source"`
	Applied time.Time `json:"applied"`

	// Rejected is why the newest State is not applied as a whole; empty if it is.
	Rejected string `json:"rejected,omitempty"`

	// RejectedNodes names the nodes that registered themselves wrongly, a line each.
	RejectedNodes string `json:"rejectedNodes,omitempty"`
}

// Leases are those of this node's pods.
type Leases struct {
	Held        int `json:"held"`
	CoolingDown int `json:"coolingDown"` // addresses that were released recently

	// Pools are the addresses that new pods can get, one for each family; none before weftd
	// forwards, or while the lease file can't be read.
	Pools []ipam.PoolUsage `json:"pools"`

	// Unreconciled is what is wrong with pods' leases and veths that weftd can't repair, a line each.
	Unreconciled []string `json:"unreconciled"`
}

// Listen opens the socket at path. One that a killed daemon left is replaced: the
// caller has made sure that no other weftd runs.
func Listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the old status socket: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("open the status socket: %w", err)
	}
	listener.SetUnlinkOnClose(false) // it may be the next weftd's by then: the caller removes it
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("close the status socket to others: %w", err), listener.Close())
	}
	return listener, nil
}

// Daemon is what weftd reports of itself, and what it does on request.
type Daemon struct {
	Report  func() Report
	Rotate  Rotate
	Confirm Confirm
	Probe   ProbePeer
	Capture Capture
	Events  Events
	Routes  Routes
	Explain Explain
}

// Handler answers for d.
func Handler(d Daemon) http.Handler {
	mux := http.NewServeMux()
	documents := []string{}
	get := func(document string, handler http.HandlerFunc) {
		documents = append(documents, document)
		mux.HandleFunc("GET /v1/"+document, handler)
	}
	get("status", func(w http.ResponseWriter, _ *http.Request) { reply(w, d.Report()) })
	get("events", d.Events.serve)
	get("routes", d.Routes.serve)
	mux.HandleFunc("GET /v1/{$}", func(w http.ResponseWriter, _ *http.Request) { reply(w, documents) })
	mux.HandleFunc("POST /v1/explain", d.Explain.serve)
	mux.HandleFunc("POST /v1/rotate-key", d.Rotate.serve)
	mux.HandleFunc("POST /v1/confirm", d.Confirm.serve)
	mux.HandleFunc("POST /v1/probe", d.Probe.serve)
	mux.HandleFunc("POST /v1/capture", d.Capture.serve)
	return mux
}

func reply(w http.ResponseWriter, document any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(document) // an error means that the client has gone
}

// answerLimit is how long Fetch waits: a weftd that runs answers at once.
const answerLimit = 5 * time.Second

// Fetch asks the daemon behind the socket at path.
func Fetch(ctx context.Context, path string) (Report, error) {
	return ask[Report](ctx, answerLimit, path, http.MethodGet, "/v1/status", nil)
}

// Server returns the number of the process that listens at path, as peercred has it. It need not answer.
func Server(path string) (pid int, err error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return 0, unreached(path, err)
	}
	defer conn.Close()
	peer, err := peercred.Of(conn)
	if err != nil {
		return 0, fmt.Errorf("ask who listens at %s: %w", path, err)
	}
	return int(peer.Pid), nil
}

// Documents returns the names of the documents that the daemon behind the socket at path serves.
func Documents(ctx context.Context, path string) ([]string, error) {
	return ask[[]string](ctx, answerLimit, path, http.MethodGet, "/v1/", nil)
}

// Document returns one of these documents as it is.
func Document(ctx context.Context, path, name string) (json.RawMessage, error) {
	return ask[json.RawMessage](ctx, answerLimit, path, http.MethodGet, "/v1/"+name, nil)
}

// ask sends a request to the daemon behind the socket at path, and returns the document
// that it answers within limit.
func ask[Document any](ctx context.Context, limit time.Duration, path, method, url string, body io.Reader) (document Document, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answer, err := send(ctx, path, method, url, body)
	if err != nil {
		return document, err
	}
	defer answer.Close()
	if err := json.NewDecoder(answer).Decode(&document); err != nil {
		return *new(Document), fmt.Errorf("read weftd's answer: %w", err)
	}
	return document, nil
}

// send sends a request to the daemon behind the socket at path, and returns its answer, which the
// caller must close.
func send(ctx context.Context, path, method, url string, body io.Reader) (answer io.ReadCloser, err error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://weftd"+url, body)
	if err != nil {
		return nil, fmt.Errorf("ask weftd: %w", err)
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
	response, err := client.Do(request)
	if err != nil {
		return nil, unreached(path, err)
	}
	switch response.StatusCode {
	case http.StatusOK:
		return response.Body, nil
	case http.StatusConflict:
		defer response.Body.Close()
		return nil, refusal(response.Body)
	default:
		defer response.Body.Close()
		return nil, fmt.Errorf("the weftd at %s answers %s; is it of another version than weft?", path, response.Status)
	}
}

// unreached says why no weftd can be asked at path.
func unreached(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("no weftd answers at %s; is it running (systemctl status weftd), and is its runDir another (--socket)?", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("not allowed to open %s: run as root", path)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the weftd at %s does not answer; see its log (journalctl -u weftd)", path)
	}
	return fmt.Errorf("ask weftd: %w", err)
}
