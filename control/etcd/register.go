package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"weft/control"
	"weft/internal/family"
	"weft/internal/strict"
)

// registration is what this node is, and what must be written for that.
type registration struct {
	node control.Node

	// claims are those that must be written; those that stand stay as they are.
	claims []netip.Prefix

	// entry is what must be written as the node's entry; empty if it is there already.
	entry string

	// lost is control.ErrNoPodCIDR, and says which one this node had and may not have any
	// longer; nil if there is none.
	lost error
}

// registration decides what this node is, from what is registered. held are the pod CIDRs
// that it had until now, and those of self if there are none: no other node must get them if
// it can be helped.
func (l *listing) registration(self control.Self, held []netip.Prefix) (registration, error) {
	name := l.options.Node
	if err := strict.CheckAddrPort(self.Endpoint); err != nil {
		return registration{}, fmt.Errorf("this node's address is unknown: %w; set advertise", err)
	}
	if len(held) == 0 {
		held = self.Held
	}
	r := registration{node: control.Node{
		Name:      name,
		Endpoint:  self.Endpoint,
		Addresses: self.Addresses,
		Key:       self.Key,
		Origin:    "etcd " + l.options.entryKey(name),
	}}
	known := l.entries[name]
	for _, f := range family.All {
		claimed, has := l.claim(f, name)
		has = has && claimed.err == nil
		if has && !strict.Within(claimed.cidr, l.options.ClusterCIDRs) {
			return registration{}, fmt.Errorf("%w: this node has claimed %s, which is in none of the cluster CIDRs any more; "+
				"stop weftd, remove the node (weft node remove %s), and start weftd again, which then claims another; its pods must be recreated",
				control.ErrNoPodCIDR, claimed.cidr, name)
		}
		if len(l.options.clusterCIDRs(f)) == 0 {
			continue
		}
		p, had := claimed.cidr, f.Prefixes(held)
		if has && len(had) == 0 {
			had = []netip.Prefix{p}
		}
		if !has || l.ownerOf(p) != name {
			var err error
			if p, err = l.choose(f, slices.Concat(had, known.node.PodCIDRs)); err != nil {
				return registration{}, err
			}
			r.claims = append(r.claims, p)
		}
		r.node.PodCIDRs = append(r.node.PodCIDRs, p)
		for _, before := range had {
			if before != p {
				r.lost = l.lost(before, p)
			}
		}
	}
	text, err := json.Marshal(r.node)
	if err != nil {
		return registration{}, fmt.Errorf("describe this node: %w", err)
	}
	if string(text) != known.raw {
		r.entry = string(text)
	}
	return r, nil
}

// ownerOf returns the node whose claim stands in the way of others that want this CIDR, empty
// if there is none.
func (l *listing) ownerOf(p netip.Prefix) string {
	_, owner, _ := control.Overlapping(&l.standing().Table, p)
	return owner
}

// lost returns the error that this node may not have what it had. What it may have instead may not be
// written yet, and perhaps can't be.
func (l *listing) lost(before, now netip.Prefix) error {
	if owner := l.ownerOf(before); owner != "" && owner != l.options.Node {
		return fmt.Errorf("%w yet: %s of this node overlaps an earlier claim of %s; this node claims another, and its pods must be recreated",
			control.ErrNoPodCIDR, before, label(owner))
	}
	return fmt.Errorf("%w yet: this node had %s, but has claimed %s, which counts; its pods must be recreated", control.ErrNoPodCIDR, before, now)
}

// choose returns the CIDR that this node must claim: what it held, or a free one.
func (l *listing) choose(f family.Family, held []netip.Prefix) (netip.Prefix, error) {
	standing := l.standing()
	for _, p := range held {
		if family.Of(p.Addr()) == f && p == p.Masked() && strict.Within(p, l.options.ClusterCIDRs) && !standing.OverlapsPrefix(p) {
			return p, nil
		}
	}
	clusterCIDRs, length := l.options.clusterCIDRs(f), l.options.mask(f)
	if p, ok := standing.free(clusterCIDRs, length, l.options.Node); ok {
		return p, nil
	}
	claimed, texts := 0, []string(nil)
	for _, c := range clusterCIDRs {
		texts = append(texts, c.String())
		for range standing.Subnets(c) {
			claimed++
		}
	}
	return netip.Prefix{}, fmt.Errorf("%w of length /%d is free in %s: %d are claimed; remove nodes that are gone (weft node list, weft node remove NAME), or widen clusterCIDRs, on every node",
		control.ErrNoPodCIDR, length, strings.Join(texts, ", "), claimed)
}

// errOvertaken says that another node was first: what was listed is no longer so.
var errOvertaken = errors.New("the entry changed in the meantime")

// write carries the registration out in one transaction, if the listing is still right
// about this node's keys, and no node has claimed one of the CIDRs. It returns the revision in
// which that was done.
func (l *listing) write(ctx context.Context, client *clientv3.Client, r registration) (revision int64, err error) {
	name := l.options.Node
	entryKey := l.options.entryKey(name)
	conditions := []clientv3.Cmp{unchanged(entryKey, l.entries[name].revision)}
	var writes []clientv3.Op
	for _, f := range family.All {
		conditions = append(conditions, unchanged(l.options.claimKey(f, name), l.claims[f][name].revision))
	}
	for _, p := range r.claims {
		conditions = append(conditions, l.unclaimed(p))
		writes = append(writes, clientv3.OpPut(l.options.claimKey(family.Of(p.Addr()), name), p.String()))
	}
	if r.entry != "" {
		writes = append(writes, clientv3.OpPut(entryKey, r.entry))
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	answer, err := client.Txn(ctx).If(conditions...).Then(writes...).Commit()
	if err != nil {
		return 0, err
	}
	if !answer.Succeeded {
		return 0, errOvertaken
	}
	return answer.Header.Revision, nil
}

// unchanged holds if a key was last written in this revision; 0 means that it isn't there.
func unchanged(key string, revision int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(key), "=", revision)
}

// unclaimed holds if no claim has this value. Without claims, etcd has no value to compare.
func (l *listing) unclaimed(p netip.Prefix) clientv3.Cmp {
	f := family.Of(p.Addr())
	claims := l.options.claimsKey(f)
	if len(l.claims[f]) == 0 {
		return clientv3.Compare(clientv3.CreateRevision(claims), "=", 0).WithPrefix()
	}
	return clientv3.Compare(clientv3.Value(claims), "!=", p.String()).WithPrefix()
}
