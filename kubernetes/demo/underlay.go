package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"weft/internal/family"
	"weft/internal/stage"
	"weft/internal/testnet"
	"weft/kubernetes"
)

const (
	// marker is what a pod asks for while the underlay is recorded, with each pod of the
	// other node in each family so often.
	marker          = "can-this-be-read"
	markerExchanges = 25
)

// showUnderlay records what a node sends and receives while its pods talk to those of the
// other node, on the underlay and before that, on weft's TUN device.
func (d *demo) showUnderlay(ctx context.Context) error {
	node, from, to := d.Node(1), d.pods[0], d.on(d.Node(2))
	exchanges := len(family.All) * len(to) * markerExchanges
	what := fmt.Sprintf("%s puts %d questions with the marker “%s” to %s and %s", from.Name, exchanges, marker, to[0].Name, to[1].Name)
	var onTUN, onUnderlay [][]byte
	err := d.Timed(what, func() (err error) {
		onTUN, err = node.Record(testnet.TUNName, func() (err error) {
			onUnderlay, err = node.Record(testnet.UnderlayLink, func() error { return d.sayMarker(ctx, from, to) })
			return err
		})
		return err
	})
	if err != nil {
		return d.Concerning(err)
	}
	inClear := stage.TallyOf(onTUN, marker).Readable
	if inClear < exchanges {
		return d.Concerning(fmt.Errorf("of %d questions only %d are seen on %s", exchanges, inClear, testnet.TUNName), node)
	}
	d.OK("%d packets with the marker are seen on %s's %s, from which weft takes them", inClear, node.Entry().Name, testnet.TUNName)
	return d.judgeUnderlay(onUnderlay, exchanges)
}

// judgeUnderlay looks at what is between the nodes, and for the marker everywhere. What
// kubelet and kube-proxy have to say to the API server is no pod's.
func (d *demo) judgeUnderlay(frames [][]byte, exchanges int) error {
	apiServer, err := d.Server.Addrs(testnet.UnderlayLink)
	if err != nil {
		return err
	}
	isAPIServers := func(frame []byte) bool {
		from, to, ok := testnet.Hosts(frame)
		return ok && slices.ContainsFunc(apiServer, func(a netip.Addr) bool { return a == from || a == to })
	}
	others := stage.TallyOf(slices.Collect(filter(frames, isAPIServers)), marker)
	if d.Sealed() && others.Readable > 0 {
		return d.Concerning(errors.New("the marker is in what node1 and the API server say to each other"), d.Node(1))
	}
	between := slices.DeleteFunc(frames, isAPIServers)
	if err := d.JudgeUnderlay(d.Node(1), between, marker, exchanges, exchanges/2); err != nil { // the answers don't repeat it
		return err
	}
	if d.Sealed() {
		d.Note("Not counted: what node1 and the API server say to each other. The marker is not there either.")
	}
	return nil
}

// sayMarker has a pod put the marker into questions to others.
func (d *demo) sayMarker(ctx context.Context, from *webPod, to []*webPod) error {
	for _, f := range family.All {
		for _, p := range to {
			url := kubernetes.WhoamiURL(p.Server(f)) + "?" + marker
			if _, err := from.run(ctx, "sh", "-c", askAgain, "sh", fmt.Sprint(markerExchanges), url); err != nil {
				return fmt.Errorf("from %s to %s, %s: %w", from.Name, p.Name, f, err)
			}
		}
	}
	return nil
}
