package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"weft/cniplugin/wiring"
	"weft/encap/sealed/handshake"
	"weft/internal/explain"
	"weft/internal/family"
	"weft/internal/hostcheck"
	"weft/internal/hostnet"
	"weft/internal/status"
	"weft/ipam"
	"weft/peer"
)

// hostKernel is this host's.
type hostKernel struct{ hostcheck.Filters }

func (hostKernel) Way(l hostnet.Lookup) (hostnet.Way, error) { return l.Ask() }
func (hostKernel) Interface(name string) hostcheck.Interface { return hostcheck.FindInterface(name) }

// explain says what becomes of a packet.
func (d *daemon) explain(ctx context.Context, q explain.Query) (status.Explanation, error) {
	node, err := d.explainer(ctx)
	if err != nil {
		return status.Explanation{}, err
	}
	var e status.Explanation
	if !q.Source.IsValid() {
		e.Example = true
		if q.Source, err = d.exampleSource(node, q.Destination); err != nil {
			return e, err
		}
	}
	if q.Source.Is4() != q.Destination.Is4() {
		return e, fmt.Errorf("%s and %s are of different families; a packet has two addresses of one", q.Source, q.Destination)
	}
	e.Answer = node.Explain(q)
	if e.Peer != "" && (e.Inbound || e.Verdict.Delivered) {
		side, err := d.askPeer(ctx, e.Answer)
		if err != nil {
			e.PeerError = err.Error()
		} else {
			e.PeerSide = &side
		}
	}
	e.Conclude()
	return e, nil
}

// peerLimit is how long a peer may take to answer.
const peerLimit = 10 * time.Second

// askPeer asks the peer what becomes of the packet there.
func (d *daemon) askPeer(ctx context.Context, a explain.Answer) (explain.Answer, error) {
	keys := d.keys()
	if keys == nil {
		return explain.Answer{}, errors.New("without keys, nodes don't ask each other: run weft explain there too")
	}
	ctx, cancel := context.WithTimeout(ctx, peerLimit)
	defer cancel()
	q := a.Query
	q.Source = a.SentFrom
	reply, err := keys.manager.Inquire(ctx, a.Peer, q.Question())
	if err != nil {
		return explain.Answer{}, err
	}
	return explain.ParseReply(reply, a.Peer, q)
}

// answerPeer answers a peer's question.
func (d *daemon) answerPeer(from *peer.Peer, question []byte) []byte {
	path := d.path.Load()
	if path == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), peerLimit)
	defer cancel()
	return explain.AnswerPeer(path.router.Table(), from.Name, question, handshake.MaxAnswer, func() (explain.Node, error) { return d.explainer(ctx) })
}

// explainer is what weftd knows now.
func (d *daemon) explainer(ctx context.Context) (explain.Node, error) {
	path := d.path.Load()
	if path == nil || d.activePlan() == nil {
		return explain.Node{}, fmt.Errorf("weftd does not forward yet: %w", d.Ready())
	}
	filters, unread := d.needs().Read(ctx)
	pods, err := d.leases.pods()
	if err != nil {
		return explain.Node{}, err
	}
	drops, guard, _ := d.drops.lately(time.Now())
	n := explain.Node{
		Kernel: hostKernel{filters}, Name: d.config.Node, TUN: d.config.TUN.Name, Encapsulation: string(d.config.Encapsulation),
		Port: d.config.Listen.Port(), Mask: d.config.Host.MarkMask, ClusterCIDRs: d.config.ClusterCIDRs, Table: path.router.Table(),
		Pods: pods, Peers: map[string]explain.Peer{}, Drops: drops, GuardDrops: guard,
		Unread: text(unread),
	}
	for _, p := range d.report().Peers {
		known := explain.Peer{State: p.StateAt(time.Now()), Down: p.Unreachable()}
		if known.Down {
			known.Error = p.Reason()
		}
		if path := p.Probed(); path != nil {
			known.MTU, known.Loss = path.MTU, path.Loss
		}
		n.Peers[p.Name] = known
	}
	return n, nil
}

// exampleSource is a pod of this node that may send to an address, or else the node.
func (d *daemon) exampleSource(n explain.Node, to netip.Addr) (netip.Addr, error) {
	var pods []netip.Addr
	for a := range n.Pods {
		if a.Is4() == to.Is4() && a != to {
			pods = append(pods, a)
		}
	}
	if len(pods) > 0 {
		return slices.MinFunc(pods, netip.Addr.Compare), nil
	}
	if plan := d.activePlan(); plan != nil {
		if own := family.Of(to).First(plan.NodeAddresses); own.IsValid() {
			return own, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("this node has no %s address in the overlay that could send to %s; name the source: weft explain SOURCE %s", family.Of(to), to, to)
}

// pods returns this node's pods by their addresses.
func (p *podLeases) pods() (map[netip.Addr]explain.Pod, error) {
	store, err := ipam.Open(p.config.StateDir, p.config.CNI.Name)
	if err != nil {
		return nil, err
	}
	leases, _, err := store.List()
	if err != nil {
		return nil, err
	}
	pods := map[netip.Addr]explain.Pod{}
	for _, l := range leases {
		for _, a := range l.Addresses {
			pods[a] = explain.Pod{Name: cmp.Or(l.Pod, l.String()), Link: wiring.HostName(l.Attachment)}
		}
	}
	return pods, nil
}
