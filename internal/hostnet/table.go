package hostnet

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"sigs.k8s.io/knftables"

	"weft/internal/nftable"
)

// nftLimit is how long nft may take. While it runs nothing else is changed on the host, and no data path
// is handed over. Tests change it.
var nftLimit = time.Minute

// table is one of weft's nftables tables.
type table struct {
	family knftables.Family
	name   string
	nft    knftables.Interface // nil before open
}

// open finds nft and what it can do, once.
func (t *table) open() error {
	if t.nft != nil {
		return nil
	}
	nft, err := knftables.New(t.family, t.name)
	if err != nil {
		return err
	}
	t.nft = nft
	return nil
}

// identity returns what the kernel says of the table, or an error that wraps nftable.ErrAbsent.
func (t *table) identity() (nftable.Identity, error) {
	return nftable.Of(nftable.Family(t.family), t.name)
}

// contents returns what the kernel says of the table, or nil if that can't be read. "Can't"
// calls for a replacement, whose error then says why.
func (t *table) contents() nftable.Contents {
	_, contents, err := nftable.ContentsOf(nftable.Family(t.family), t.name)
	if err != nil {
		return nil
	}
	return contents
}

// commit runs a transaction that makes the table what want says, and returns its contents
// from then on.
func (t *table) commit(ctx context.Context, tx *knftables.Transaction, want nftable.Identity) (nftable.Contents, error) {
	within, cancel := context.WithTimeoutCause(ctx, nftLimit, fmt.Errorf("nft has not ended for %v; look for what holds it up (ps -C nft)", nftLimit))
	defer cancel()
	if err := t.nft.Run(within, tx); err != nil {
		return nil, cmp.Or(context.Cause(within), err)
	}
	id, contents, err := nftable.ContentsOf(nftable.Family(t.family), t.name)
	switch {
	case err != nil:
		return nil, err
	case id != want:
		return nil, fmt.Errorf("another program changed the table at the same moment: it has %d rules (%q) instead of %d", id.Rules, id.Comment, want.Rules)
	}
	return contents, nil
}

// remove removes the table if there is one.
func (t *table) remove(ctx context.Context) error {
	switch _, err := t.identity(); {
	case errors.Is(err, nftable.ErrAbsent):
		return nil
	case err != nil:
		return err
	}
	if out, err := exec.CommandContext(ctx, "nft", "delete", "table", string(t.family), t.name).CombinedOutput(); err != nil {
		return fmt.Errorf("remove the table %s %s: %w: %s", t.family, t.name, err, out)
	}
	return nil
}

// identityOf is the identity of a table of rules, and of what else counts.
func identityOf(rules []guardRule, others ...any) nftable.Identity {
	digest := sha256.New()
	fmt.Fprintln(digest, others...)
	for _, r := range rules {
		fmt.Fprintln(digest, r.chain, r.rule)
	}
	return nftable.Identity{
		// nft takes comments of up to 128 bytes.
		Comment: fmt.Sprintf("kept by weftd, removed by weft teardown; changes are undone; rules %x", digest.Sum(nil)[:8]),
		Rules:   len(rules),
	}
}
