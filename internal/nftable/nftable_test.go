package nftable_test

import (
	"errors"
	"maps"
	"os/exec"
	"slices"
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

// Contents change with whatever changes a table, and with nothing else: no packet, no other table.
func TestContentsChangeWithTheTable(t *testing.T) {
	testnet.InNewNamespace(t)
	nft(t, `table inet weft { comment "whole";
		counter dropped { packets 3 bytes 300; }
		set nodes { type ipv4_addr; elements = { 192.0.2.1, 192.0.2.2 }; }
		set pods { type ipv4_addr; flags interval; elements = { 10.244.0.0/16 }; }
		set asked { type ipv4_addr; flags dynamic, timeout; timeout 1m; }
		chain in { type filter hook input priority 0; ip saddr @nodes counter name dropped drop
			update @asked { ip daddr }
		}
	}`)
	contents := func() nftable.Contents {
		t.Helper()
		id, c, err := nftable.ContentsOf(nftable.Inet, "weft")
		if err != nil {
			t.Fatal(err)
		}
		if want, err := nftable.Of(nftable.Inet, "weft"); err != nil || id != want {
			t.Errorf("the identity is %+v beside the contents, and %+v (%v) alone", id, want, err)
		}
		return c
	}
	last := contents()
	for _, tt := range []struct {
		script  string
		changes []string // which parts
	}{
		{`table inet other { set nodes { type ipv4_addr; }; }`, nil},
		{`add element inet weft nodes { 192.0.2.1 }`, nil},
		{`reset counters table inet weft`, nil},
		{`add element inet weft asked { 192.0.2.7 }`, nil},
		{`add element inet weft nodes { 192.0.2.3 }`, []string{"nodes"}},
		{`delete element inet weft nodes { 192.0.2.3 }; add element inet weft nodes { 192.0.2.4 }`, []string{"nodes"}},
		{`add element inet weft pods { 10.245.0.0/16 }`, []string{"pods"}},
		{`add set inet weft more { type ipv4_addr; }`, []string{"more", ""}},
		{`delete set inet weft more`, []string{"more", ""}},
		{`insert rule inet weft in accept`, []string{""}},
		{`flush chain inet weft in; add rule inet weft in accept`, []string{""}},
		{`add chain inet weft in { policy drop; }`, []string{""}},
		{`add table inet weft { flags dormant; }`, []string{""}},
	} {
		nft(t, tt.script)
		now := contents()
		var changed []string
		for part := range now {
			if now[part] != last[part] {
				changed = append(changed, part)
			}
		}
		for part := range last {
			if _, ok := now[part]; !ok {
				changed = append(changed, part)
			}
		}
		slices.Sort(changed)
		slices.Sort(tt.changes)
		if !slices.Equal(changed, tt.changes) {
			t.Errorf("%s: changes %q, want %q", tt.script, changed, tt.changes)
		}
		last = now
	}
	nft(t, `delete table inet weft`)
	if _, _, err := nftable.ContentsOf(nftable.Inet, "weft"); !errors.Is(err, nftable.ErrAbsent) {
		t.Errorf("without the table: %v", err)
	}
}

func TestCountersAreTheKernels(t *testing.T) {
	testnet.InNewNamespace(t)
	expect := func(want map[string]nftable.Counter) {
		t.Helper()
		if got, err := nftable.Counters(nftable.Inet, "weft"); err != nil || !maps.Equal(got, want) {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	}
	expect(nil)
	nft(t, `table ip weft { counter of_another_family { packets 1 bytes 1; }; }
		table inet other { counter a { packets 9 bytes 900; }; }`)
	expect(nil)
	nft(t, `table inet weft { counter a { packets 3 bytes 5000000000; }
		counter b { packets 0 bytes 0; }
		quota q { 10 mbytes; }
	}`)
	expect(map[string]nftable.Counter{"a": {Packets: 3, Bytes: 5_000_000_000}, "b": {}})
}
