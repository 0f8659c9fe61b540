package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"weft/internal/family"
	"weft/internal/stage"
	"weft/internal/testnet"
)

// talkEvery is the pause between two exchanges of the conversation that goes on
// while a node joins.
const talkEvery = 5 * time.Millisecond

// talk is what became of a conversation.
type talk struct {
	exchanges int
	longest   time.Duration
	err       error
}

// startTalk talks on one TCP connection until the returned function is called,
// which reports the result.
func startTalk(ctx context.Context, from *testnet.Pod, to netip.Addr) (stop func() talk, err error) {
	c, err := converse(ctx, from.Namespace, serverAt(to))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	outcome := make(chan talk, 1)
	go func() {
		defer c.Close()
		var t talk
		pause := time.NewTicker(talkEvery)
		defer pause.Stop()
		for ctx.Err() == nil && t.err == nil {
			var took time.Duration
			took, t.err = c.exchange("w")
			t.exchanges++
			t.longest = max(t.longest, took)
			<-pause.C
		}
		outcome <- t
	}()
	return func() talk { cancel(); return <-outcome }, nil
}

// joinNode adds a node while two pods talk, and shows that neither lost anything.
func (d *demo) joinNode(ctx context.Context) error {
	daemons := d.daemons()
	from, to := d.pods[0], d.pods[len(d.pods)-1]
	stop, err := startTalk(ctx, from, family.IPv4.First(to.Addrs))
	if err != nil {
		return d.Concerning(err, from.Node, to.Node)
	}
	d.OK("%s talks to %s on one TCP connection, every %d ms", from.PodName, to.PodName, talkEvery.Milliseconds())
	err = d.addFourthNode(ctx)
	t := stop()
	if err := errors.Join(err, t.err); err != nil {
		return d.Concerning(err, d.cluster.Nodes()...)
	}
	d.OK("%s and %s meanwhile: %d exchanges, none failed, the longest took %.1f ms",
		from.PodName, to.PodName, t.exchanges, float64(t.longest.Microseconds())/1000)

	after := d.daemons()
	maps.DeleteFunc(after, func(name string, _ int) bool { return daemons[name] == 0 })
	if !maps.Equal(daemons, after) {
		return fmt.Errorf("weftd was restarted: process ids %v, then %v", daemons, after)
	}
	d.OK("weftd on %s was not restarted", strings.Join(slices.Sorted(maps.Keys(daemons)), ", "))
	return nil
}

// addFourthNode adds a node with pods and waits until all pods reach each other.
func (d *demo) addFourthNode(ctx context.Context) error {
	old, _, err := d.places()
	if err != nil {
		return err
	}
	var node *testnet.Node
	what := "node4 is on the segment; nodes.yaml is replaced on all nodes"
	if d.inEtcd() {
		what = "node4 is on the segment; it will register itself in etcd"
	}
	err = d.Timed(what, func() (err error) {
		if node, err = d.cluster.AddNode(ctx); err != nil {
			return err
		}
		return d.cluster.Publish()
	})
	if err != nil {
		return err
	}
	if err := d.startNode(ctx, node); err != nil {
		return err
	}
	if err := d.addPods(ctx, node, nodeCount+1); err != nil {
		return err
	}
	all, _, err := d.places()
	if err != nil {
		return err
	}
	newcomers := all[len(old):]
	probes := slices.Concat(stage.Cross(old, newcomers), stage.Cross(newcomers, old))
	return d.Timed(fmt.Sprintf("every pod reaches the new ones and they reach it: %d probes", len(probes)), func() error {
		return testnet.Wait(ctx, "the nodes to learn of node4", func(ctx context.Context) error {
			return d.ProbeAll(ctx, probes)
		})
	})
}

// daemons are the process ids of weftd, by node.
func (d *demo) daemons() map[string]int {
	ids := make(map[string]int)
	for _, node := range d.cluster.Nodes() {
		ids[node.Entry().Name] = node.PID()
	}
	return ids
}
