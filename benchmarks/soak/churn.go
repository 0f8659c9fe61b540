package soak

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"weft/internal/testnet"
)

// counter counts what was done.
type counter struct{ n atomic.Int64 }

func (c *counter) add()     { c.n.Add(1) }
func (c *counter) get() int { return int(c.n.Load()) }

// podsAtOnce is how many pods come and go together.
const podsAtOnce = 4

// pods adds pods to node1, has them exchange packets with one on node4, and removes them.
func (s *site) pods(ctx context.Context) error {
	node1, node4 := s.nodes[0], s.nodes[3]
	other, err := node4.AddPod(ctx, "other")
	if err != nil {
		return err
	}
	for i := range podsAtOnce {
		pod, err := node1.AddPod(ctx, fmt.Sprintf("pod%d", i))
		if err != nil {
			return err
		}
		for _, v6 := range []bool{false, true} {
			if addr, ok := other.Addr(v6); ok {
				if err := exchange(ctx, pod, addr); err != nil {
					return err
				}
			}
		}
		s.done.pods.add()
	}
	for i := range podsAtOnce {
		if err := node1.DeletePod(ctx, fmt.Sprintf("pod%d", i)); err != nil {
			return err
		}
	}
	return node4.DeletePod(ctx, "other")
}

// exchange sends large and small packets, some of which may get lost.
func exchange(ctx context.Context, pod *testnet.Pod, addr netip.Addr) error {
	if _, err := pod.Exec(ctx, "ping", "-n", "-q", "-c", "50", "-i", "0.01", "-W", "5", "-s", "1300", addr.String()); err != nil {
		return fmt.Errorf("no packet from %s reached %s: %w", pod.PodName, addr, err)
	}
	return nil
}

// restarts stops node2's weftd and starts it again, or kills it, by turns.
func (s *site) restarts(ctx context.Context) error {
	node := s.nodes[1]
	if s.done.restarts.get()%2 == 0 {
		if err := node.Stop(ctx); err != nil {
			return err
		}
	} else {
		node.Kill()
	}
	if err := node.Start(ctx); err != nil {
		return err
	}
	s.done.restarts.add()
	pause(ctx, 5*time.Second)
	return nil
}

// lists removes node3 from the others' lists of nodes, and adds it again.
func (s *site) lists(ctx context.Context) error {
	var all, without []testnet.NodeEntry
	for i, n := range s.nodes {
		all = append(all, n.Entry())
		if i != 2 {
			without = append(without, n.Entry())
		}
	}
	for _, list := range [][]testnet.NodeEntry{without, all} {
		for _, n := range []*testnet.Node{s.nodes[0], s.nodes[3]} {
			if err := n.SetNodes(list); err != nil {
				return err
			}
		}
		pause(ctx, 3*time.Second)
	}
	s.done.lists.add()
	return nil
}

// rotations has node4 agree on new keys with all peers that it has keys with.
func (s *site) rotations(ctx context.Context) error {
	pause(ctx, 2*time.Second)
	if ctx.Err() != nil {
		return nil
	}
	// A peer may just be restarted: then it says so, and fails.
	_, _ = s.nodes[3].Exec(ctx, s.weft, "--socket", s.nodes[3].Socket(), "rotate-key")
	s.done.rotations.add()
	return nil
}
