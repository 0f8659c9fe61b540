package hostnet

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"sigs.k8s.io/knftables"

	"weft/internal/marks"
)

// guard is weft's nftables table. It stays when weftd dies: pods keep their way
// out, and strangers stay out.
type guard struct {
	nft knftables.Interface

	// holds is what the table was last made for, nil if that failed, and listed is how nft
	// listed it then. While nft lists it like that, the table holds what it must.
	holds  *Network
	listed string
}

// open finds nft and what it can do, once.
func (g *guard) open() error {
	if g.nft != nil {
		return nil
	}
	nft, err := knftables.New(knftables.InetFamily, marks.Table)
	if err != nil {
		return err
	}
	g.nft = nft
	return nil
}

// apply makes the table what n needs, and reports whether it had to be replaced. Untouched
// says that the table is as it was when it was last looked at.
//
// It is replaced as a whole and in one transaction, so that nothing of an older
// version or of a stranger stays in it, and no packet meets half a table. If only
// peers have changed, and nothing else has, only they are.
func (g *guard) apply(ctx context.Context, n Network, untouched bool) (replaced bool, err error) {
	if err := g.open(); err != nil {
		return false, err
	}
	holds := g.holds
	if holds != nil && sameRules(*holds, n) && (untouched || g.listed == list(ctx)) {
		tx := g.nft.NewTransaction()
		changeAddresses(tx, setPeers, holds.PeerAddresses, n.PeerAddresses)
		changeAddresses(tx, setSenders, holds.Senders, n.Senders)
		if tx.NumOperations() == 0 {
			return false, nil
		}
		rules := withoutPeers(g.listed)
		if err := g.commit(ctx, n, tx); err != nil {
			return false, err
		}
		if withoutPeers(g.listed) != rules {
			g.holds = nil // somebody else was at it too, whose event has the table replaced
		}
		return false, nil
	}
	// What is counted between here and the commit is lost.
	counts, err := g.counters(ctx)
	if err != nil {
		g.holds = nil
		return false, err
	}
	return true, g.commit(ctx, n, g.ruleset(n, counts))
}

// commit runs a transaction after which the table holds what n needs.
func (g *guard) commit(ctx context.Context, n Network, tx *knftables.Transaction) error {
	g.holds = nil
	if err := g.nft.Run(ctx, tx); err != nil {
		return err
	}
	if g.listed = list(ctx); g.listed != "" {
		g.holds = &n
	}
	return nil
}

func (g *guard) remove(ctx context.Context) error {
	if err := g.open(); err != nil {
		return fmt.Errorf("remove the guard table: %w", err)
	}
	g.holds = nil
	tx := g.nft.NewTransaction()
	// Adding it first makes the deletion succeed when it is gone already; nft has
	// "destroy" for this only since 1.0.7.
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	if err := g.nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("remove the guard table: %w", err)
	}
	return nil
}

func (g *guard) drops(ctx context.Context) (map[string]uint64, error) {
	if err := g.open(); err != nil {
		return nil, fmt.Errorf("read the guard table's counters: %w", err)
	}
	counters, err := g.counters(ctx)
	if err != nil {
		return nil, err
	}
	packets := make(map[string]uint64, len(counters))
	for name, c := range counters {
		packets[name] = *c.Packets
	}
	return packets, nil
}

// counters returns the table's drop counters by name; none when there is no table.
func (g *guard) counters(ctx context.Context) (map[string]*knftables.Counter, error) {
	listed, err := g.nft.ListCounters(ctx)
	if err != nil && !knftables.IsNotFound(err) {
		return nil, fmt.Errorf("read the guard table's counters: %w", err)
	}
	counters := make(map[string]*knftables.Counter, len(listed))
	for _, c := range listed {
		counters[c.Name] = c
	}
	return counters, nil
}

// list returns the table as nft prints it, without counts, or "" if it can't.
// "Can't" calls for a replacement, which then tells what is the matter.
func list(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "nft", "--stateless", "list", "table", "inet", marks.Table).Output()
	if err != nil {
		return ""
	}
	return string(out)
}

// withoutPeers returns what nft has listed without the sets that change with the peers.
func withoutPeers(listed string) string {
	var b strings.Builder
	inSet := false
	for line := range strings.Lines(listed) {
		switch {
		case strings.HasPrefix(line, "\tset "+setPeers), strings.HasPrefix(line, "\tset "+setSenders):
			inSet = true
		case line == "\t}\n":
			inSet = false
		}
		if !inSet {
			b.WriteString(line)
		}
	}
	return b.String()
}
