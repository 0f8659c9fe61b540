package hostcheck

import (
	"fmt"
	"strings"
	"testing"
)

// TestChainsThatJumpToEachOther follows more ways through chains than can be followed: without bounds
// it would not end. What is not followed passes.
func TestChainsThatJumpToEachOther(t *testing.T) {
	for _, tt := range []struct {
		name          string
		levels, jumps int
		want          verdict
	}{
		{"one way", 15, 1, drop},
		{"few ways", 3, 8, drop},
		{"8^15 ways", 15, 8, accept},
		{"deeper than the kernel goes", 40, 1, accept},
	} {
		var text strings.Builder
		text.WriteString("*filter\n:FORWARD DROP [0:0]\n")
		for level := range tt.levels + 1 {
			fmt.Fprintf(&text, ":c%d - [0:0]\n", level)
		}
		text.WriteString("-A FORWARD -j c0\n")
		for level := range tt.levels {
			for range tt.jumps {
				fmt.Fprintf(&text, "-A c%d -j c%d\n", level, level+1)
			}
		}
		base := parseIPTables("ip", text.String(), false)[0]
		if got := base.judge(probe{hook: "forward"}); got.verdict != tt.want {
			t.Errorf("%s: %+v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestChainsOfManyServices has chains as kube-proxy makes them for 8,000 Services, in two tables, of
// which only one drops. Rules jump within their table.
func TestChainsOfManyServices(t *testing.T) {
	const services = 8000
	var objects []string
	add := func(format string, args ...any) { objects = append(objects, fmt.Sprintf(format, args...)) }
	for _, table := range []struct{ name, does string }{{"other", "accept"}, {"kube-proxy", "drop"}} {
		chain := func(name, more string) {
			add(`{"chain": {"family": "ip", "table": %q, "name": %q%s}}`, table.name, name, more)
		}
		rule := func(chain, expr string) {
			add(`{"rule": {"family": "ip", "table": %q, "chain": %q, "handle": 1, "expr": [%s]}}`, table.name, chain, expr)
		}
		chain("forward", `, "type": "filter", "hook": "forward", "policy": "accept"`)
		var choices []string
		for i := range services {
			service, endpoint := fmt.Sprint("service-", i), fmt.Sprint("endpoint-", i)
			chain(service, "")
			chain(endpoint, "")
			rule(service, fmt.Sprintf(`{"goto": {"target": %q}}`, endpoint))
			rule(endpoint, fmt.Sprintf(`{%q: null}`, table.does))
			choices = append(choices, fmt.Sprintf(`[%d, {"goto": {"target": %q}}]`, i, service))
		}
		rule("forward", `{"vmap": {"key": {"payload": {"protocol": "tcp", "field": "dport"}}, "data": {"set": [`+strings.Join(choices, ",")+`]}}}`)
	}
	parsed, err := parseNFT([]byte(`{"nftables": [` + strings.Join(objects, ",") + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range chainsOf(parsed) {
		if c.hook == "" {
			continue
		}
		for _, port := range []uint16{0, services - 1, services} {
			want := accept
			if c.table == "kube-proxy" && port < services {
				want = drop
			}
			if got := c.judge(probe{hook: "forward", protocol: "tcp", port: port}); got.verdict != want {
				t.Errorf("table %s, port %d: %+v, want %v", c.table, port, got, want)
			}
		}
	}
}
