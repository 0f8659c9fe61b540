package main_test

import (
	"errors"
	"strings"
	"testing"

	"weft/internal/manual"
	"weft/internal/testnet"
)

const (
	walkPage    = "docs/operations/troubleshoot.md"
	walkSection = "an-example-from-a-broken-cluster-to-the-cause"
)

// TestWalkToTheCause follows the example of the manual in the cluster that it is about. The commands
// must print what the page shows, at most three of them lead to the cause, and the remedy helps.
func TestWalkToTheCause(t *testing.T) {
	t.Parallel()
	const cause = "inet filter forward"
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true})
	node1, node2 := cluster.Nodes()[0], cluster.Nodes()[1]
	web, db := addPodOf(t, node1, "shop", "web-0"), addPodOf(t, node2, "shop", "db-0")
	expectPings(t, web, db)
	run(t, node2.Namespace, "nft", "table "+strings.TrimSuffix(cause, " forward")+" { chain forward { type filter hook forward priority 0; policy drop; }; }")
	eventually(t, "weftd to notice the filter", func() error {
		for _, w := range report(t, node2).Warnings {
			if strings.Contains(w.Text, cause) {
				return nil
			}
		}
		return errors.New("no warning names it")
	})
	if pings(t, web.Namespace, addrOf(t, db, false)) == nil {
		t.Fatal("the cluster is not broken")
	}

	looked, named := 0, false
	for _, c := range manual.CommandsOf(t, walkPage) {
		if c.Section != walkSection {
			continue
		}
		node := node1
		if strings.HasPrefix(c.Text, "# on node2\n") {
			node = node2
		}
		got := finish(t, asInstalled(t, stage{at: node.Namespace, node: node}, c.Text))
		if got.status != 0 {
			t.Errorf("%s:%d: exit status %d\n%s%s", c.Page, c.Line, got.status, got.stdout, got.stderr)
		}
		if c.Output != "" {
			looked++
			named = named || strings.Contains(c.Output, cause)
			expectShown(t, c, got.stdout)
		}
	}
	if looked > 3 || !named {
		t.Errorf("%d commands; they name the cause: %v", looked, named)
	}
	expectPings(t, web, db)
}

// expectShown fails unless a command has printed the lines that the page shows, in that order. The
// page may leave out lines, and ends of lines.
func expectShown(t *testing.T, c manual.Commands, printed string) {
	t.Helper()
	rest := strings.Split(printed, "\n")
	for want := range strings.Lines(c.Output) {
		want, cut := strings.CutSuffix(words(want), "…")
		for {
			if len(rest) == 0 {
				t.Errorf("%s:%d: no %q at its place in\n%s", c.Page, c.Line, want, printed)
				return
			}
			line := words(rest[0])
			rest = rest[1:]
			if line == want || cut && strings.HasPrefix(line, want) {
				break
			}
		}
	}
}

// words leaves out how a line is indented and aligned.
func words(line string) string { return strings.Join(strings.Fields(line), " ") }
