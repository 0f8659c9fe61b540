// Package status is how weft asks weftd what it is doing: one JSON document over
// HTTP on a unix socket in the run directory, which only root may open.
package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"weft/router"
)

// SocketName is the socket's name in the run directory.
const SocketName = "weftd.sock"

// Report is what weftd says of itself.
type Report struct {
	Version       string         `json:"version"`
	Node          string         `json:"node"`
	Ready         bool           `json:"ready"`
	NotReady      string         `json:"notReady,omitempty"` // why, if it is not
	Encapsulation string         `json:"encapsulation"`
	Listen        netip.AddrPort `json:"listen"`
	TUN           TUN            `json:"tun"`
	PodCIDRs      []netip.Prefix `json:"podCIDRs"`
	Peers         []Peer         `json:"peers"`
	State         State          `json:"state"`

	router.Stats

	// Drops counts packets by reason; a reason that never occurred is absent.
	Drops map[string]uint64 `json:"drops"`
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
}

// State tells where the State in force comes from.
type State struct {
	Source  string    `json:"source"`
	Applied time.Time `json:"applied"`

	// Rejected is why a newer State is not in force; empty if the newest one is.
	Rejected string `json:"rejected,omitempty"`
}

// Listen opens the socket at path. One that a killed daemon left is replaced: the
// caller has made sure that no other weftd runs.
func Listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the old status socket: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open the status socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("close the status socket to others: %w", err), listener.Close())
	}
	return listener, nil
}

// Handler serves reports.
func Handler(report func() Report) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(report()) // the client has gone; there is nobody to tell
	})
	return mux
}

// answerLimit is how long Fetch waits: a weftd that runs answers at once.
const answerLimit = 5 * time.Second

// Fetch asks the daemon behind the socket at path.
func Fetch(ctx context.Context, path string) (Report, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://weftd/v1/status", nil)
	if err != nil {
		return Report{}, fmt.Errorf("ask weftd: %w", err)
	}
	response, err := client.Do(request)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return Report{}, fmt.Errorf("no weftd answers at %s; is it running (systemctl status weftd), and is its runDir another (--socket)?", path)
	case errors.Is(err, fs.ErrPermission):
		return Report{}, fmt.Errorf("not allowed to open %s: run as root", path)
	case errors.Is(err, context.DeadlineExceeded):
		return Report{}, fmt.Errorf("the weftd at %s does not answer; its log may tell why (journalctl -u weftd)", path)
	case err != nil:
		return Report{}, fmt.Errorf("ask weftd: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return Report{}, fmt.Errorf("the weftd at %s answers %s; is it of another version than weft?", path, response.Status)
	}
	var report Report
	if err := json.NewDecoder(response.Body).Decode(&report); err != nil {
		return Report{}, fmt.Errorf("read weftd's answer: %w", err)
	}
	return report, nil
}
