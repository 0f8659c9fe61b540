package hostnet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strconv"

	"sigs.k8s.io/knftables"

	"weft/internal/family"
	"weft/internal/marks"
	"weft/internal/nftable"
	"weft/internal/strict"
)

// guard is weft's nftables table. It stays when weftd ends, however it ends: pods keep
// their way out, and nothing of theirs leaves in clear.
type guard struct {
	table
	next table // see replace

	// holds is what the table was last made for, nil if that failed, and made are its contents
	// then. While they are the same, the table holds what it must.
	holds *Network
	made  nftable.Contents
}

func newGuard() guard {
	return guard{
		table: table{family: knftables.InetFamily, name: marks.Table},
		next:  table{family: knftables.InetFamily, name: marks.NextTable},
	}
}

// protect makes the table what n needs of it before it is known which peers there are and
// which pod CIDRs this node has. A table with n's rules stays as it is. Another one is
// replaced, and passes on what its sets hold, so that no moment knows less than the one
// before.
func (g *guard) protect(ctx context.Context, n Network) (replaced bool, err error) {
	if err := g.open(); err != nil {
		return false, err
	}
	id, err := g.identity()
	switch {
	case err == nil && id == identity(n):
		return false, g.keep(ctx, n)
	case err == nil:
		if err := g.inherit(ctx, &n); err != nil {
			return false, err
		}
	case !errors.Is(err, nftable.ErrAbsent):
		return false, err
	}
	counts, err := g.counters()
	if err != nil {
		return false, err
	}
	return true, g.replace(ctx, n, counts)
}

// keep has the table that stands taken for one that this process made: its rules are n's, and
// its sets hold what they hold.
func (g *guard) keep(ctx context.Context, n Network) error {
	if err := g.inherit(ctx, &n); err != nil {
		return err
	}
	n.sortSets()
	if g.made = g.contents(); g.made != nil {
		g.holds = &n
	}
	return g.next.remove(ctx)
}

// inherit adds to n what the sets of the table hold that stands. A set that an older weftd
// did not have is empty, and an element that it wrote otherwise is left to the next Apply.
func (g *guard) inherit(ctx context.Context, n *Network) error {
	podCIDR := func(key []string) {
		if p, err := netip.ParsePrefix(key[0]); err == nil && strict.Within(p, n.ClusterCIDRs) {
			n.PodCIDRs = append(n.PodCIDRs, p)
		}
	}
	endpoint := func(key []string) {
		if e, err := netip.ParseAddrPort(net.JoinHostPort(key[0], key[len(key)-1])); err == nil {
			n.PeerEndpoints = append(n.PeerEndpoints, e)
		}
	}
	port := func(key []string) {
		if p, err := strconv.ParseUint(key[0], 10, 16); err == nil {
			n.SourcePorts = append(n.SourcePorts, uint16(p))
		}
	}
	type set struct {
		name string
		add  func(key []string)
	}
	sets := []set{{setPorts, port}}
	for _, f := range family.All {
		digit := f.Digit()
		sets = append(sets, set{setPods + digit, podCIDR}, set{setPeers + digit, appendAddr(&n.PeerAddresses)}, set{setSenders + digit, appendAddr(&n.Senders)},
			set{setKnown + digit, appendAddr(&n.Known)}, set{setEndpoints + digit, endpoint})
	}
	for _, set := range sets {
		elements, err := g.nft.ListElements(ctx, "set", set.name)
		if err != nil && !knftables.IsNotFound(err) {
			return fmt.Errorf("read the set %s of the guard table: %w", set.name, err)
		}
		for _, e := range elements {
			set.add(e.Key)
		}
	}
	return nil
}

func appendAddr(to *[]netip.Addr) func(key []string) {
	return func(key []string) {
		if a, err := netip.ParseAddr(key[0]); err == nil {
			*to = append(*to, a)
		}
	}
}

// identity is what the kernel says of the table that holds n's rules. Sets may hold
// anything.
func identity(n Network) nftable.Identity {
	n.SourcePorts = nil // Protect doesn't know them, and they stand in constants of some rules
	return identityOf(rules(n), chains, n.ClusterCIDRs)
}

// apply makes the table what n needs, and reports whether it had to be replaced. Untouched
// says that the table is as it was when it was last looked at.
//
// It is replaced as a whole and in one transaction, so that nothing of an older
// version or of another program stays in it, and no packet meets half a table. If only
// peers have changed, and nothing else has, only they are.
func (g *guard) apply(ctx context.Context, n Network, untouched bool) (replaced bool, err error) {
	if err := g.open(); err != nil {
		return false, err
	}
	holds := g.holds
	if holds != nil && sameRules(*holds, n) && (untouched || maps.Equal(g.made, g.contents())) {
		tx := g.nft.NewTransaction()
		changeAddresses(tx, setPeers, holds.PeerAddresses, n.PeerAddresses)
		changeAddresses(tx, setSenders, holds.Senders, n.Senders)
		changeEndpoints(tx, holds.PeerEndpoints, n.PeerEndpoints)
		if tx.NumOperations() == 0 {
			return false, nil
		}
		before := g.made
		if err := g.commit(ctx, n, tx); err != nil {
			return false, err
		}
		if !maps.Equal(withoutPeers(g.made), withoutPeers(before)) {
			g.holds = nil // another program changed it too, whose event has the table replaced
		}
		return false, nil
	}
	// The replacement loses the drops that are counted between here and the commit.
	counts, err := g.counters()
	if err != nil {
		g.holds = nil
		return false, err
	}
	return true, g.replace(ctx, n, counts)
}

// replace makes the table anew. The kernel decides which chains a packet passes when it
// arrives at a hook, and those of the old table are empty from the moment of the commit: a
// packet that is at a hook at this moment would pass neither the old rules nor the new ones.
// So a second table with the new rules stands meanwhile.
func (g *guard) replace(ctx context.Context, n Network, counts map[string]nftable.Counter) error {
	g.holds = nil
	if _, err := g.identity(); !errors.Is(err, nftable.ErrAbsent) {
		if err := g.next.open(); err != nil {
			return err
		}
		if err := g.next.nft.Run(ctx, ruleset(g.next.nft.NewTransaction(), n, nil)); err != nil {
			return err
		}
	}
	err := g.commit(ctx, n, ruleset(g.nft.NewTransaction(), n, counts))
	return errors.Join(err, g.next.remove(ctx)) // one that a weftd that was killed left too
}

// commit runs a transaction after which the table holds what n needs.
func (g *guard) commit(ctx context.Context, n Network, tx *knftables.Transaction) (err error) {
	g.holds = nil
	if g.made, err = g.table.commit(ctx, tx, identity(n)); err != nil {
		return err
	}
	g.holds = &n
	return nil
}

func (g *guard) remove(ctx context.Context) error {
	g.holds = nil
	return errors.Join(g.table.remove(ctx), g.next.remove(ctx))
}

// TryRules has the kernel check the rules that n needs, without making them: it checks a table
// that never sees a packet, and forgets it, but it may load modules for that. The error says what
// the kernel or nft lacks.
func TryRules(ctx context.Context, n Network) error {
	t := table{family: knftables.InetFamily, name: marks.Table + "-check"}
	if err := t.open(); err != nil {
		return err
	}
	return t.nft.Check(ctx, ruleset(t.nft.NewTransaction(), n, nil, knftables.DormantFlag))
}

// counters returns the table's drop counters by name; none when there is no table.
func (g *guard) counters() (map[string]nftable.Counter, error) {
	return nftable.Counters(nftable.Family(g.family), g.name)
}

// withoutPeers returns contents of the guard table without the sets that change with the peers.
func withoutPeers(contents nftable.Contents) nftable.Contents {
	rest := maps.Clone(contents)
	for _, set := range []string{setPeers, setSenders, setEndpoints} {
		for _, f := range family.All {
			delete(rest, set+f.Digit())
		}
	}
	return rest
}
