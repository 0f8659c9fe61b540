package engine_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"weft/control"
	"weft/daemon/engine"
	"weft/peer"
)

const grace = 30 * time.Second

// play is an engine that a transcript drives.
type play struct {
	*engine.Engine
	now  time.Time
	job  engine.Job
	last control.State
}

// newPlay returns what node1 knows before its first list.
func newPlay(hold bool) *play {
	p := &play{Engine: engine.New(grace), now: time.Unix(1e9, 0)}
	p.Configure(control.Options{Node: "node1", ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, Key: key(1)}, hold)
	return p
}

func key(n int) peer.Fingerprint { return peer.Fingerprint{byte(n), 1} }

// list is a list of nodes: numbers, each with changes as 2cidr9 (pod CIDR 10.244.9.0/24), 2at9
// (endpoint 192.168.77.9), 2key9, 2also9 (a further address, 192.168.78.9).
func list(words []string) control.State {
	state := control.State{Origin: "nodes", Registered: true}
	for _, word := range words {
		n, change := number(word)
		node := control.Node{Name: fmt.Sprintf("node%d", n), Key: key(n),
			Endpoint: netip.MustParseAddrPort(fmt.Sprintf("192.168.77.%d:9338", n)),
			PodCIDRs: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", n))}}
		what := strings.TrimRight(change, "0123456789")
		to, _ := number(strings.TrimPrefix(change, what))
		switch what {
		case "cidr":
			node.PodCIDRs[0] = netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", to))
		case "at":
			node.Endpoint = netip.MustParseAddrPort(fmt.Sprintf("192.168.77.%d:9338", to))
		case "key":
			node.Key = key(to)
		case "also":
			node.Addresses = []netip.Addr{netip.MustParseAddr(fmt.Sprintf("192.168.78.%d", to))}
		}
		state.Nodes = append(state.Nodes, node)
	}
	return state
}

// number reads the number that a word begins with.
func number(word string) (n int, rest string) {
	rest = strings.TrimLeft(word, "0123456789")
	n, _ = strconv.Atoi(word[:len(word)-len(rest)])
	return n, rest
}

// event has the engine take one event, and says what it decides and where the node is then.
func (p *play) event(t *testing.T, line string) string {
	t.Helper()
	var d engine.Decision
	words := strings.Fields(line)
	text := strings.TrimSpace(strings.TrimPrefix(line, words[0]))
	switch words[0] {
	case "up": // all that a start is
		for _, step := range []string{"first " + text, "done"} {
			p.event(t, step)
		}
		return p.event(t, "conflist")
	case "done":
		p.event(t, "apply")
		return p.event(t, "applied")
	case "first":
		p.last = list(words[1:])
		plan, err := p.First(p.last, p.now)
		if err != nil {
			return "error: " + brief(err)
		}
		d = p.Begin(plan, nil, nil, nil)
	case "restart": // with what the snapshot has, and pods with addresses of a former pod CIDR
		state, _ := p.Snapshot(nil)
		hold := p.now
		*p = *newPlay(false)
		p.now = hold
		plan, err := p.First(state, p.now)
		if err != nil {
			return "error: " + brief(err)
		}
		n, _ := number(words[1])
		d = p.Begin(plan, []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", n))}, nil, nil)
	case "successor": // of a list, which goes on where this one ends
		roams, now := p.Roams(), p.now
		*p = *newPlay(false)
		p.now, p.last = now, list(words[1:])
		plan, err := p.First(p.last, p.now)
		if err != nil {
			return "error: " + brief(err)
		}
		d = p.Begin(plan, nil, nil, roams)
	case "list":
		p.last = list(words[1:])
		d = p.List(p.last, nil, p.now)
	case "outage":
		d = p.List(control.State{}, errors.New(text), p.now)
	case "lost":
		d = p.List(control.State{}, fmt.Errorf("%w: %s", control.ErrNoPodCIDR, text), p.now)
	case "roams":
		n, _ := number(words[1])
		to, _ := number(words[2])
		d = p.Roamed(p.Next().Table.ByKey(key(n)), netip.MustParseAddr(fmt.Sprintf("192.168.77.%d", to)))
	case "proven":
		all := engine.Proven{}
		for _, word := range words[1:] {
			n, _ := number(word)
			all[netip.MustParseAddr(fmt.Sprintf("192.168.78.%d", n))] = key(n)
		}
		d = p.Proved(all)
	case "confirm":
		var err error
		if _, d, err = p.Confirm(); err != nil {
			return "error: " + brief(err)
		}
	case "apply":
		p.job = p.Job()
		return fmt.Sprintf("news %t, fenced %t", p.job.News, p.job.Fenced)
	case "applied":
		d = p.Applied(p.job, nil, p.now)
	case "fails":
		d = p.Applied(p.job, errors.New(text), p.now)
	case "conflist":
		var err error
		if text != "" {
			err = errors.New(text)
		}
		d = p.Ready(err)
	case "waits":
		p.Waits(errors.New(text))
	case "later":
		wait, err := time.ParseDuration(words[1])
		if err != nil {
			t.Fatal(err)
		}
		p.now = p.now.Add(wait)
	case "save":
		_, saved := p.Snapshot(nil)
		return fmt.Sprintf("snapshot %t", saved != nil)
	default:
		t.Fatalf("no event %q", line)
	}
	return p.describe(d)
}

// brief is the beginning of a message.
func brief(err error) string {
	const most = 62
	if text := err.Error(); len(text) > most {
		return text[:most] + "..."
	}
	return err.Error()
}

// describe writes a decision, and then the peers to apply and whether pods can be added.
func (p *play) describe(d engine.Decision) string {
	var all []string
	if d.Withdraw {
		all = append(all, "withdraw")
	}
	for _, l := range d.Logs {
		level := strings.ToLower(l.Level.String())
		if l.Quiet {
			level = "note"
		}
		all = append(all, level+" "+l.Message)
	}
	if d.Publish != nil {
		up := "up"
		if d.Publish.Down != "" {
			up = "down"
		}
		all = append(all, "publish "+up)
	}
	if d.Apply {
		all = append(all, "apply")
	}
	var peers []string
	if p.Next() != nil {
		for _, n := range p.Next().Peers {
			text := strings.TrimPrefix(n.Name, "node")
			if n.Listed.IsValid() {
				text += "@" + strings.TrimPrefix(n.Endpoint.Addr().String(), "192.168.77.")
			}
			for _, prefix := range n.Prefixes {
				if further, ok := strings.CutPrefix(prefix.Addr().String(), "192.168.78."); ok {
					text += "+" + further
				}
			}
			peers = append(peers, text)
		}
	}
	all = append(all, fmt.Sprintf("[%s]", strings.Join(peers, " ")))
	if why := p.NotReady(); why != nil {
		return strings.Join(all, ", ") + " not ready: " + brief(why)
	}
	return strings.Join(all, ", ") + " ready"
}

// TestTranscripts: each scenario is what happens, one event a line, and behind the arrow what the
// engine decides ("note" is for the journal alone), [the peers to apply], and whether pods can be added. A peer is its number, with
// @N where it has roamed to, and +N for a further address.
func TestTranscripts(t *testing.T) {
	for scenario := range strings.SplitSeq(strings.TrimSpace(transcripts), "\n\n") {
		title, script, _ := strings.Cut(scenario, "\n")
		t.Run(strings.TrimPrefix(title, "# "), func(t *testing.T) {
			p := newPlay(strings.Contains(title, "(keys held)"))
			var got strings.Builder
			for line := range strings.Lines(script) {
				event, _, _ := strings.Cut(line, "->")
				event = strings.TrimSpace(event)
				fmt.Fprintf(&got, "%-20s -> %s\n", event, p.event(t, event))
			}
			if want := strings.TrimRight(script, "\n") + "\n"; got.String() != want {
				t.Errorf("got:\n%s\nwant:\n%s", got.String(), want)
			}
		})
	}
}

// The newest list of nodes is current when it is applied, on the host too, and not before.
func TestCurrentOnceItIsApplied(t *testing.T) {
	p := newPlay(false)
	for _, tt := range []struct {
		events  string
		current bool
	}{
		{"waits for the list", false},
		{"first 1 2 3 4", false},
		{"apply; fails a route is taken", false},
		{"apply; applied", true},
		{"outage etcd is unreachable", false},
		{"list 1 2 3 4", true},
		{"apply; fails a route is taken", false},
		{"apply; applied", true},
		{"list 1", false}, // most peers are gone: weftd keeps them
		{"confirm", true},
	} {
		for event := range strings.SplitSeq(tt.events, "; ") {
			p.event(t, event)
		}
		if got := p.Current(); got != tt.current {
			t.Errorf("%s: current is %t", tt.events, got)
		}
	}
}
