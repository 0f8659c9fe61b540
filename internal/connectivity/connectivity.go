// Package connectivity tests a node's pod network from within: two network namespaces that the CNI
// plugins wire like pods' stand for pods. On other nodes it makes nothing; their weftd answers.
package connectivity

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/control"
	"weft/internal/echo"
	"weft/internal/family"
	"weft/internal/status"
)

// Outcome is how a check has ended.
type Outcome string

// The outcomes.
const (
	Passed  Outcome = "passed"
	Failed  Outcome = "failed"
	Skipped Outcome = "skipped"
)

// Result is that of a check.
type Result struct {
	// Check says what was tested, for example "pod → node2: TCP over IPv4".
	Check   string  `json:"check"`
	Outcome Outcome `json:"outcome"`

	// Detail is what was seen: a round-trip time, or why it failed or was skipped.
	Detail string `json:"detail,omitempty"`

	// Cause is the likely cause of a failure, and the remedy.
	Cause string `json:"cause,omitempty"`
}

// Test is a test of a node.
type Test struct {
	// Node is what its weftd reports, and Peers are those to test.
	Node  status.Report
	Peers []status.Peer

	// CacheDir is a folder for the CNI library, which is empty.
	CacheDir string

	// Outside is an address and TCP port outside the cluster that pods must reach, unless it is
	// not valid.
	Outside netip.AddrPort

	// Within is how long each check may take.
	Within time.Duration

	// Explain returns the likely cause of an error on a way.
	Explain func(ctx context.Context, w Way, err error) string

	// Report is called with each result at once, and never twice at the same time.
	Report func(Result)

	reporting sync.Mutex
}

// Way is the one that the packets of a check take.
type Way struct {
	From netip.Addr
	To   netip.AddrPort

	// Peer is the name of the peer that they lead to, if it is one, and Outside says that they leave
	// the cluster.
	Peer    string
	Outside bool
}

// peersAtOnce is how many peers are tested at a time.
const peersAtOnce = 8

// transfer is how many bytes go over a TCP connection and back: many packets of full size.
const transfer = 256 << 10

// Run runs all checks. An error is a reason why they could not be run.
func (t *Test) Run(ctx context.Context) (err error) {
	if !t.Node.Ready {
		t.report(Result{Check: "weftd is ready", Outcome: Failed, Detail: t.Node.NotReady, Cause: "`weft status` says what weftd waits for"})
		return nil
	}
	network, err := loadNetwork(t.Node.CNI.Conflist, t.Node.CNI.BinDir, t.CacheDir)
	if err != nil {
		return err
	}
	if err := network.sweep(); err != nil {
		return err
	}
	var pods []*standIn
	defer func() {
		for _, pod := range pods {
			err = errors.Join(err, pod.remove())
		}
	}()
	for _, suffix := range []string{"a", "b"} {
		pod, err := network.add(ctx, suffix)
		if err != nil {
			t.report(Result{Check: "add a pod", Outcome: Failed, Detail: err.Error(), Cause: "`weft doctor` checks this host"})
			return nil
		}
		pods = append(pods, pod)
		t.report(Result{Check: "add a pod", Outcome: Passed, Detail: control.Join(pod.addrs)})
	}
	if err := t.local(ctx, pods[0], pods[1]); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(peersAtOnce)
	for _, p := range t.Peers {
		group.Go(func() error {
			t.peer(ctx, pods[0], p)
			return ctx.Err()
		})
	}
	return group.Wait()
}

// check runs one check, and reports its result.
func (t *Test) check(ctx context.Context, what string, w Way, run func(context.Context) (detail string, err error)) (passed bool) {
	within, cancel := context.WithTimeout(ctx, t.Within)
	defer cancel()
	detail, err := run(within)
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		t.report(Result{Check: what, Outcome: Failed, Detail: err.Error(), Cause: t.Explain(ctx, w, err)})
		return false
	}
	t.report(Result{Check: what, Outcome: Passed, Detail: detail})
	return true
}

func (t *Test) report(r Result) {
	t.reporting.Lock()
	defer t.reporting.Unlock()
	t.Report(r)
}

// local tests what stays on this node: pods with the node and with each other.
func (t *Test) local(ctx context.Context, a, b *standIn) error {
	server, err := b.serve(ctx)
	if err != nil {
		return err
	}
	defer server.stop()
	for _, from := range a.addrs {
		of := family.Of(from)
		to, gateway := of.First(b.addrs), nodeAddress(t.Node.PodCIDRs, of)
		if !to.IsValid() || !gateway.IsValid() {
			continue
		}
		at := netip.AddrPortFrom(to, server.port)
		t.check(ctx, "pod → its node: ping over "+of.String(), Way{From: from, To: netip.AddrPortFrom(gateway, t.Node.EchoPort)}, func(ctx context.Context) (string, error) {
			rtt, err := ping(ctx, a, gateway, 0)
			return rtt.Round(time.Microsecond).String(), err
		})
		t.check(ctx, "node → its pod: TCP over "+of.String(), Way{From: gateway, To: at}, func(ctx context.Context) (string, error) {
			_, err := echo.TCP(ctx, new(net.Dialer).DialContext, at, transfer)
			return "", err
		})
		t.check(ctx, "pod → pod on this node: TCP over "+of.String(), Way{From: from, To: at}, func(ctx context.Context) (string, error) {
			seen, err := echo.TCP(ctx, a.dial, at, transfer)
			return "", translated(seen, from, err)
		})
		t.check(ctx, "pod → pod on this node: UDP over "+of.String(), Way{From: from, To: at}, func(ctx context.Context) (string, error) {
			seen, err := echo.UDP(ctx, a.dial, at, t.Node.TUN.MTU-udpHeaders(of))
			return "", translated(seen, from, err)
		})
		if outside := t.Outside; outside.IsValid() && family.Of(outside.Addr()) == of {
			t.check(ctx, "pod → "+outside.String()+": TCP", Way{From: from, To: outside, Outside: true}, func(ctx context.Context) (string, error) {
				conn, err := a.dial(ctx, "tcp", outside.String())
				if err != nil {
					return "", err
				}
				return "", conn.Close()
			})
		}
	}
	return ctx.Err()
}

// peer tests the way to a peer and back.
func (t *Test) peer(ctx context.Context, pod *standIn, p status.Peer) {
	if p.Path == nil {
		t.report(Result{Check: "pod → " + p.Name, Outcome: Skipped, Detail: "it is a kernel VXLAN device, and answers no tests"})
		return
	}
	for _, from := range pod.addrs {
		of := family.Of(from)
		to := nodeAddress(p.Prefixes, of)
		if !to.IsValid() {
			continue
		}
		check := func(what string, run func(ctx context.Context) (string, error)) bool {
			w := Way{From: from, To: netip.AddrPortFrom(to, t.Node.EchoPort), Peer: p.Name}
			return t.check(ctx, fmt.Sprintf("pod → %s: %s over %s", p.Name, what, of), w, run)
		}
		if !check("ping", func(ctx context.Context) (string, error) {
			rtt, err := ping(ctx, pod, to, 0)
			return rtt.Round(time.Microsecond).String(), err
		}) {
			continue // the others would fail for the same reason
		}
		check(fmt.Sprintf("packets of %d bytes", p.Path.MTU), func(ctx context.Context) (string, error) {
			_, err := ping(ctx, pod, to, p.Path.MTU)
			return narrow(p.Path), err
		})
		t.echo(ctx, pod, p, from, to, check)
	}
}

// echo tests a peer's echo, if it has one.
func (t *Test) echo(ctx context.Context, pod *standIn, p status.Peer, from, to netip.Addr, check func(string, func(context.Context) (string, error)) bool) {
	of, at := family.Of(from), netip.AddrPortFrom(to, t.Node.EchoPort)
	if at.Port() == 0 {
		t.report(Result{Check: fmt.Sprintf("pod → %s: TCP and UDP over %s", p.Name, of), Outcome: Skipped, Detail: "echo.port is 0 here"})
		return
	}
	within, cancel := context.WithTimeout(ctx, t.Within)
	defer cancel()
	if conn, err := pod.dial(within, "tcp", at.String()); errors.Is(err, syscall.ECONNREFUSED) {
		t.report(Result{Check: fmt.Sprintf("pod → %s: TCP and UDP over %s", p.Name, of), Outcome: Skipped,
			Detail: fmt.Sprintf("nothing answers at port %d there: its weftd is of an earlier version, or has another echo.port", at.Port())})
		return
	} else if err == nil {
		conn.Close()
	}
	check("TCP", func(ctx context.Context) (string, error) {
		seen, err := echo.TCP(ctx, pod.dial, at, transfer)
		return "", translated(seen, from, err)
	})
	check("UDP", func(ctx context.Context) (string, error) {
		seen, err := echo.UDP(ctx, pod.dial, at, min(p.Path.MTU, t.Node.TUN.MTU)-udpHeaders(of))
		return "", translated(seen, from, err)
	})
}

// translated is the error if the other end has seen another address than the pod's.
func translated(seen, from netip.Addr, err error) error {
	if err == nil && seen != from {
		return fmt.Errorf("the other end sees the packets come from %s, not from the pod's %s; look for a program that masquerades pods' packets", seen, from)
	}
	return err
}

func narrow(p *status.Path) string {
	if p.MTU < p.Largest {
		return fmt.Sprintf("the path carries only these, not the %d that pods may send", p.Largest)
	}
	return ""
}

// nodeAddress returns the overlay address of the node that has these prefixes: the first of its first
// pod CIDR of a family.
func nodeAddress(prefixes []netip.Prefix, of family.Family) netip.Addr {
	pods := of.Prefixes(prefixes)
	i := slices.IndexFunc(pods, func(p netip.Prefix) bool { return !p.IsSingleIP() })
	if i < 0 {
		return netip.Addr{}
	}
	return pods[i].Addr().Next()
}

func udpHeaders(of family.Family) int {
	const udpLen = 8
	if of == family.IPv4 {
		return ipv4Len + udpLen
	}
	return ipv6Len + udpLen
}
