package nftable_test

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"weft/internal/nftable"
	"weft/internal/testnet"
)

func nft(t *testing.T, script string) {
	t.Helper()
	c := exec.Command("nft", "-f", "-")
	c.Stdin = strings.NewReader(script)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
}

func TestIdentityIsTheKernels(t *testing.T) {
	testnet.InNewNamespace(t)
	expect := func(what string, want nftable.Identity) {
		t.Helper()
		if got, err := nftable.Of(nftable.Inet, "weft"); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", what, got, err, want)
		}
	}
	absent := func(what string) {
		t.Helper()
		if _, err := nftable.Of(nftable.Inet, "weft"); !errors.Is(err, nftable.ErrAbsent) || !strings.Contains(err.Error(), "inet weft") {
			t.Errorf("%s: %v", what, err)
		}
	}
	absent("without any table")
	nft(t, `table ip weft { comment "another family"; }
		table inet other { chain a {
accept;
}
}`)
	absent("beside other tables")
	nft(t, `table inet weft { comment "made of 1";
		chain a {
accept; accept;
}
		chain b {
drop;
}
}`)
	expect("two chains", nftable.Identity{Comment: "made of 1", Rules: 3})
	nft(t, `flush chain inet weft a`)
	expect("one chain flushed", nftable.Identity{Comment: "made of 1", Rules: 1})
	nft(t, `delete table inet weft
table inet weft { chain a {
accept;
}
}`)
	expect("without a comment", nftable.Identity{Rules: 1})
	nft(t, `flush ruleset`)
	absent("after a flush")
	nft(t, `table bridge weft { comment "of bridges"; chain a {
accept;
}
}`)
	absent("beside a table of bridges")
	if got, err := nftable.Of(nftable.Bridge, "weft"); err != nil || got != (nftable.Identity{Comment: "of bridges", Rules: 1}) {
		t.Errorf("the table of bridges: %+v, %v", got, err)
	}
	if _, err := nftable.Of(nftable.Bridge, "other"); !errors.Is(err, nftable.ErrAbsent) || !strings.Contains(err.Error(), "bridge other") {
		t.Errorf("no table of bridges: %v", err)
	}
}
